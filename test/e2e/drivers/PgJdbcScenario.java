import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.net.URI;
import java.net.URISyntaxException;
import java.sql.Array;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Savepoint;
import java.sql.Statement;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Properties;
import java.util.Random;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyIn;
import org.postgresql.copy.CopyManager;

/**
 * pgjdbc: always the extended protocol, statements named S_1, S_2, ... after
 * five uses (BEGIN and COMMIT too), binary transfer from then on, batches.
 *
 * A scenario of the same shape as those in Python: see scenario.py. Run it as
 * java -cp postgresql.jar PgJdbcScenario.java, with DATABASE_URL and so on.
 */
public class PgJdbcScenario {
    static final int CLIENTS = number("CLIENTS", 20);
    static final int ROUNDS = number("ROUNDS", 10);
    static final int SERVERS = number("SERVERS", 0);
    static final String BIG_TEXT = bigText();
    static final byte[] BIG_BYTES = new byte[1 << 20];

    static {
        new Random(1).nextBytes(BIG_BYTES);
    }

    interface Step {
        void run() throws Exception;
    }

    static int failed = 0;

    static int number(String name, int otherwise) {
        String value = System.getenv(name);
        return value == null ? otherwise : Integer.parseInt(value);
    }

    static String bigText() {
        StringBuilder text = new StringBuilder();
        for (int at = 0; at < 131072; at++)
            text.append(String.format("%07x ", at));
        return text.toString();
    }

    /** postgres://user:password@host:port/db?options, as JDBC wants it. */
    static Connection connect(String... options) {
        try {
            URI url = new URI(System.getenv("DATABASE_URL"));
            Properties properties = new Properties();
            String[] user = url.getUserInfo().split(":", 2);
            properties.setProperty("user", user[0]);
            properties.setProperty("password", user[1]);
            for (String option : options) {
                String[] pair = option.split("=", 2);
                properties.setProperty(pair[0], pair[1]);
            }
            return DriverManager.getConnection("jdbc:postgresql://"
                + url.getHost() + ":" + url.getPort() + url.getPath()
                + (url.getQuery() == null ? "" : "?" + url.getQuery()),
                properties);
        } catch (SQLException | URISyntaxException error) {
            throw new IllegalStateException(error);
        }
    }

    static void step(String name, Step body) {
        try {
            body.run();
            System.out.println("ok      " + name);
        } catch (Exception | AssertionError error) {
            failed++;
            System.out.println("FAILED  " + name);
            error.printStackTrace(System.out);
        }
    }

    static void same(Object got, Object wanted) {
        if (!wanted.equals(got))
            throw new AssertionError("got " + shorten(got) + ", wanted "
                + shorten(wanted));
    }

    static String shorten(Object value) {
        String text = String.valueOf(value);
        return text.length() < 400 ? text : text.substring(0, 400) + "...";
    }

    /** The step must end in an error of this SQLSTATE. */
    static void fails(String state, Step body) throws Exception {
        try {
            body.run();
        } catch (SQLException error) {
            same(error.getSQLState(), state);
            return;
        }
        throw new AssertionError("no error, wanted " + state);
    }

    /** The rows, columns joined by "|"; or the count of rows changed. */
    static List<String> ask(Connection conn, String sql, Object... values)
            throws SQLException {
        try (PreparedStatement ps = conn.prepareStatement(sql)) {
            for (int at = 0; at < values.length; at++)
                ps.setObject(at + 1, values[at]);
            if (!ps.execute())
                return List.of(String.valueOf(ps.getUpdateCount()));
            return rows(ps.getResultSet());
        }
    }

    static List<String> rows(ResultSet result) throws SQLException {
        List<String> rows = new ArrayList<>();
        int columns = result.getMetaData().getColumnCount();
        while (result.next()) {
            List<String> row = new ArrayList<>();
            for (int at = 1; at <= columns; at++)
                row.add(String.valueOf(result.getString(at)));
            rows.add(String.join("|", row));
        }
        return rows;
    }

    static String count(Connection conn, String email) throws SQLException {
        return ask(conn, "select count(*) from pgjdbc_item where email = ?",
            email).get(0);
    }

    static void insert(Connection conn, String email) throws SQLException {
        ask(conn, "insert into pgjdbc_item (email) values (?)", email);
    }

    static void createTables() throws Exception {
        try (Connection conn = connect();
                Statement st = conn.createStatement()) {
            st.execute("drop table if exists pgjdbc_item, pgjdbc_ledger;"
                + "create table pgjdbc_item (id int generated always as"
                + " identity primary key, email text not null unique,"
                + " note text);"
                + "create table pgjdbc_ledger (client int, round int,"
                + " note text)");
        }
    }

    static void crud() throws Exception {
        try (Connection conn = connect()) {
            String sql = "insert into pgjdbc_item (email, note) values (?, ?)";
            int key;
            try (PreparedStatement ps = conn.prepareStatement(sql,
                    Statement.RETURN_GENERATED_KEYS)) {
                ps.setString(1, "crud@x");
                ps.setString(2, "one");
                same(ps.executeUpdate(), 1);
                ResultSet keys = ps.getGeneratedKeys();
                keys.next();
                key = keys.getInt("id");
            }
            String find = "select email, note from pgjdbc_item where id = ?";
            same(ask(conn, find, key), List.of("crud@x|one"));
            same(ask(conn, "update pgjdbc_item set note = null where id = ?",
                key), List.of("1"));
            same(ask(conn, find, key), List.of("crud@x|null"));
            same(ask(conn, "delete from pgjdbc_item where id = ?", key),
                List.of("1"));
            same(ask(conn, find, key), List.of());
        }
    }

    static void commitAndRollback() throws Exception {
        try (Connection one = connect(); Connection two = connect()) {
            one.setAutoCommit(false);
            insert(one, "tx@x");
            same(count(two, "tx@x"), "0");
            one.commit();
            same(count(two, "tx@x"), "1");
            insert(one, "gone@x");
            one.rollback();
            same(count(two, "gone@x"), "0");
        }
    }

    static void savepoints() throws Exception {
        try (Connection conn = connect()) {
            conn.setAutoCommit(false);
            insert(conn, "outer@x");
            Savepoint here = conn.setSavepoint("here");
            insert(conn, "inner@x");
            fails("22012", () -> ask(conn, "select 1 / 0"));
            conn.rollback(here);
            conn.commit();
            same(count(conn, "outer@x") + count(conn, "inner@x"), "10");
        }
    }

    static void errors() throws Exception {
        try (Connection conn = connect()) {
            insert(conn, "twice@x");
            fails("23505", () -> insert(conn, "twice@x"));
            fails("42601", () -> ask(conn, "selec 1"));
            fails("22P02", () -> ask(conn, "select cast(? as text)::int", "x"));
            conn.setAutoCommit(false);
            fails("42P01", () -> ask(conn, "select * from not_there"));
            fails("25P02", () -> ask(conn, "select 1"));
            conn.rollback();
            conn.setAutoCommit(true);
            same(ask(conn, "select 1"), List.of("1"));
        }
    }

    static void namedStatements() throws Exception {
        try (Connection conn = connect();
                PreparedStatement ps = conn.prepareStatement("select ? + 1")) {
            for (int n = 0; n < 20; n++) {
                ps.setInt(1, n);
                same(rows(ps.executeQuery()), List.of("" + (n + 1)));
            }
            conn.setAutoCommit(false);
            for (int n = 0; n < 20; n++) {
                ps.setInt(1, n);
                same(rows(ps.executeQuery()), List.of("" + (n + 1)));
                conn.commit();
            }
        }
    }

    static void sameNames() throws Exception {
        // Named from the first use: S_1 is another text on each connection.
        List<Connection> conns = new ArrayList<>();
        for (int n = 0; n < CLIENTS; n++)
            conns.add(connect("prepareThreshold=-1"));
        for (int turn = 0; turn < 5; turn++)
            for (int n = 0; n < CLIENTS; n++)
                same(ask(conns.get(n), "select " + n + ", ?", "own"),
                    List.of(n + "|own"));
        for (Connection conn : conns)
            conn.close();
    }

    static void smallCache() throws Exception {
        String[] options = {"prepareThreshold=1",
            "preparedStatementCacheQueries=2"};
        try (Connection one = connect(options);
                Connection two = connect(options)) {
            for (int turn = 0; turn < 3; turn++)
                for (int n = 0; n < 6; n++) {
                    String first = "one " + n, second = "two " + n;
                    same(ask(one, "select '" + first + "'"), List.of(first));
                    same(ask(two, "select '" + second + "'"), List.of(second));
                }
        }
    }

    static void simpleMode() throws Exception {
        try (Connection conn = connect("preferQueryMode=simple")) {
            for (int n = 0; n < 10; n++)
                same(ask(conn, "select ?, 'x'", n), List.of(n + "|x"));
            fails("23505", () -> insert(conn, "twice@x"));
            same(ask(conn, "select 1"), List.of("1"));
        }
    }

    static void severalStatements() throws Exception {
        try (Connection conn = connect();
                Statement st = conn.createStatement()) {
            st.execute("select 1; insert into pgjdbc_item (email)"
                + " values ('multi@x'); select 3");
            same(rows(st.getResultSet()), List.of("1"));
            same(st.getMoreResults(), false);
            same(st.getUpdateCount(), 1);
            same(st.getMoreResults(), true);
            same(rows(st.getResultSet()), List.of("3"));
        }
    }

    static void values() throws Exception {
        String sql = "select ?::int, ?::int8, ?::float8, ?::numeric, ?::text,"
            + " ?::bool, ?::bytea, ?::uuid, ?::timestamptz, ?::int[], ?::text,"
            + " ?::text, ?::jsonb";
        UUID uuid = new UUID(0, 5);
        byte[] raw = {0, 1, -1};
        OffsetDateTime when = OffsetDateTime.of(2026, 11, 30, 1, 2, 3, 4000,
            ZoneOffset.UTC);
        try (Connection conn = connect();
                PreparedStatement ps = conn.prepareStatement(sql)) {
            Array array = conn.createArrayOf("int4",
                new Integer[] {1, null, 3});
            // In text at first; named and in binary after five times.
            for (int turn = 0; turn < 10; turn++) {
                Object[] sent = {-7, 1L << 40, 2.5, new BigDecimal("1.50"),
                    "\u00e9\n'\\", true, raw, uuid, when, array, null, "",
                    "{\"a\": null}"};
                for (int at = 0; at < sent.length; at++)
                    ps.setObject(at + 1, sent[at]);
                ResultSet got = ps.executeQuery();
                got.next();
                for (int at : new int[] {1, 2, 3, 4, 5, 6, 8, 12})
                    same(got.getObject(at), sent[at - 1]);
                same(Arrays.equals(got.getBytes(7), raw), true);
                same(got.getObject(9, OffsetDateTime.class), when);
                same(Arrays.toString((Integer[]) got.getArray(10).getArray()),
                    "[1, null, 3]");
                same(got.getString(11) == null, true);
                same(got.getString(13), "{\"a\": null}");
            }
        }
    }

    static void big() throws Exception {
        try (Connection conn = connect(); PreparedStatement ps =
                conn.prepareStatement("select ?::text, ?::bytea")) {
            for (int turn = 0; turn < 7; turn++) {
                ps.setString(1, BIG_TEXT);
                ps.setBytes(2, BIG_BYTES);
                ResultSet got = ps.executeQuery();
                got.next();
                same(got.getString(1), BIG_TEXT);
                same(Arrays.equals(got.getBytes(2), BIG_BYTES), true);
            }
        }
    }

    static void batches() throws Exception {
        try (Connection conn = connect();
                PreparedStatement ps = conn.prepareStatement(
                    "insert into pgjdbc_item (email) values (?)")) {
            conn.setAutoCommit(false);
            for (int n = 0; n < 1000; n++) {
                ps.setString(1, "batch" + n + "@x");
                ps.addBatch();
            }
            same(Arrays.stream(ps.executeBatch()).sum(), 1000);
            conn.commit();
            for (String name : List.of("batch-a@x", "batch0@x", "batch-b@x")) {
                ps.setString(1, name);
                ps.addBatch();
            }
            try {
                ps.executeBatch();
                throw new AssertionError("the batch did not fail");
            } catch (BatchUpdateException error) {
                same(error.getSQLState(), "23505");
            }
            conn.rollback();
            same(ask(conn, "select count(*) from pgjdbc_item"
                + " where email like 'batch%'"), List.of("1000"));
            conn.commit();
        }
    }

    static void rewrittenBatch() throws Exception {
        try (Connection conn = connect("reWriteBatchedInserts=true");
                PreparedStatement ps = conn.prepareStatement(
                    "insert into pgjdbc_ledger values (?, ?, ?)")) {
            conn.setAutoCommit(false);
            for (int n = 0; n < 1000; n++) {
                ps.setInt(1, n);
                ps.setInt(2, n);
                ps.setString(3, "batch");
                ps.addBatch();
            }
            ps.executeBatch();
            same(ask(conn, "select count(*), sum(client) from pgjdbc_ledger"),
                List.of("1000|499500"));
            conn.rollback();
        }
    }

    static void fetchSize() throws Exception {
        // Portals of 10 rows, suspended over Syncs of the same transaction.
        try (Connection conn = connect(); PreparedStatement ps =
                conn.prepareStatement("select generate_series(1, ?)")) {
            conn.setAutoCommit(false);
            ps.setFetchSize(10);
            for (int turn = 0; turn < 7; turn++) {
                ps.setInt(1, 100);
                ResultSet got = ps.executeQuery();
                for (int n = 1; n <= 100; n++) {
                    same(got.next(), true);
                    same(got.getInt(1), n);
                    if (n == 50)
                        same(ask(conn, "select 'between'"), List.of("between"));
                }
                same(got.next(), false);
                conn.commit();
            }
        }
    }

    static void copy() throws Exception {
        StringBuilder rows = new StringBuilder();
        for (int n = 0; n < 5000; n++)
            rows.append(n + "\t" + n + "\t" + "copied ".repeat(20) + "\n");
        try (Connection conn = connect()) {
            CopyManager copy = conn.unwrap(PGConnection.class).getCopyAPI();
            conn.setAutoCommit(false);
            same(copy.copyIn("copy pgjdbc_ledger from stdin",
                new StringReader(rows.toString())), 5000L);
            StringWriter out = new StringWriter();
            copy.copyOut("copy (select * from pgjdbc_ledger order by 1)"
                + " to stdout", out);
            same(out.toString(), rows.toString());
            conn.rollback();
        }
    }

    static void failedCopy() throws Exception {
        try (Connection conn = connect()) {
            CopyManager copy = conn.unwrap(PGConnection.class).getCopyAPI();
            fails("22P02", () -> copy.copyIn("copy pgjdbc_ledger from stdin",
                new StringReader("not a number\t1\tx\n".repeat(5000))));
            CopyIn given = copy.copyIn("copy pgjdbc_ledger from stdin");
            given.cancelCopy();
            same(ask(conn, "select count(*) from pgjdbc_ledger"), List.of("0"));
        }
    }

    static void notices() throws Exception {
        try (Connection conn = connect();
                Statement st = conn.createStatement()) {
            st.execute("do $$ begin raise notice 'hear, %', 'hear'; end $$");
            List<String> heard = new ArrayList<>();
            for (SQLWarning it = st.getWarnings(); it != null;
                    it = it.getNextWarning())
                heard.add(it.getMessage());
            same(heard.contains("hear, hear"), true);
        }
    }

    static void cancel() throws Exception {
        ExecutorService other = Executors.newSingleThreadExecutor();
        try (Connection conn = connect();
                Statement st = conn.createStatement()) {
            for (int turn = 0; turn < 3; turn++) {
                Future<Void> sleeper = other.submit(() -> {
                    fails("57014", () -> st.execute("do $$ begin raise notice"
                        + " 'asleep'; perform pg_sleep(60); end $$"));
                    return null;
                });
                while (st.getWarnings() == null && !sleeper.isDone())
                    Thread.onSpinWait();
                st.cancel();
                sleeper.get();
                st.clearWarnings();
                same(ask(conn, "select 'usable'"), List.of("usable"));
            }
        } finally {
            other.shutdownNow();
        }
    }

    static void timeouts() throws Exception {
        try (Connection conn = connect();
                Statement st = conn.createStatement()) {
            st.setQueryTimeout(1);      // the driver's own: it cancels
            fails("57014", () -> st.execute("select pg_sleep(60)"));
            st.setQueryTimeout(0);
            conn.setAutoCommit(false);
            st.execute("set local statement_timeout = '50ms'");
            fails("57014", () -> st.execute("select pg_sleep(60)"));
            conn.rollback();
            same(ask(conn, "select pg_sleep(0.1)::text"), List.of(""));
        }
    }

    static void isolation() throws Exception {
        try (Connection conn = connect()) {
            conn.setAutoCommit(false);
            conn.setReadOnly(true);
            fails("25006", () -> insert(conn, "ro@x"));
            conn.rollback();
            conn.setReadOnly(false);
            insert(conn, "ro@x");
            conn.rollback();
        }
    }

    static List<String> member(int client, CyclicBarrier here)
            throws Exception {
        List<String> backends = new ArrayList<>();
        Random random = new Random();
        try (Connection conn = connect("prepareThreshold=1")) {
            here.await(30, TimeUnit.SECONDS);
            conn.setAutoCommit(false);
            for (int turn = 0; turn < ROUNDS; turn++) {
                String mine = client + "/" + turn + "/" + random.nextLong();
                String[] echo = ask(conn, "select ?::text, " + client
                    + ", pg_backend_pid()", mine).get(0).split("\\|");
                same(echo[0] + echo[1], mine + client);
                backends.add(echo[2]);
                ask(conn, "insert into pgjdbc_ledger values (?, ?, ?)", client,
                    turn, mine);
                same(ask(conn, "select note, pg_backend_pid()"
                    + " from pgjdbc_ledger where client = ? and round = ?",
                    client, turn),
                    List.of(mine + "|" + echo[2]));
                if (turn % 2 == 0)
                    conn.commit();
                else
                    conn.rollback();
            }
            List<String> committed = new ArrayList<>();
            for (int turn = 0; turn < ROUNDS; turn += 2)
                committed.add("" + turn);
            same(ask(conn, "select round from pgjdbc_ledger"
                + " where client = ? order by 1", client), committed);
            conn.commit();
        }
        return backends;
    }

    static void crowd() throws Exception {
        CyclicBarrier here = new CyclicBarrier(CLIENTS);
        ExecutorService threads = Executors.newFixedThreadPool(CLIENTS);
        List<Callable<List<String>>> members = new ArrayList<>();
        for (int n = 0; n < CLIENTS; n++) {
            int client = n;
            members.add(() -> member(client, here));
        }
        Set<String> backends = new HashSet<>();
        try {
            for (Future<List<String>> one : threads.invokeAll(members))
                backends.addAll(one.get());
        } finally {
            threads.shutdownNow();
        }
        if (SERVERS > 0 && backends.size() > SERVERS)
            throw new AssertionError(backends.size()
                + " backends served the crowd, not " + SERVERS);
    }

    public static void main(String[] arguments) {
        step("tables are created", PgJdbcScenario::createTables);
        step("rows are created, read, updated and deleted",
            PgJdbcScenario::crud);
        step("a commit is seen by others and a rollback by nobody",
            PgJdbcScenario::commitAndRollback);
        step("an error after a savepoint rolls back that far",
            PgJdbcScenario::savepoints);
        step("errors leave the connection usable", PgJdbcScenario::errors);
        step("a statement used often becomes named and keeps its meaning",
            PgJdbcScenario::namedStatements);
        step("many clients prepare other statements under the same name",
            PgJdbcScenario::sameNames);
        step("a full cache closes this client's statements only",
            PgJdbcScenario::smallCache);
        step("the simple protocol works", PgJdbcScenario::simpleMode);
        step("several statements in one string answer in order",
            PgJdbcScenario::severalStatements);
        step("values come back as they were, in text and in binary",
            PgJdbcScenario::values);
        step("a megabyte goes there and back", PgJdbcScenario::big);
        step("a batch is one transaction", PgJdbcScenario::batches);
        step("a rewritten batch arrives", PgJdbcScenario::rewrittenBatch);
        step("a result is fetched in pieces", PgJdbcScenario::fetchSize);
        step("copy goes in and out", PgJdbcScenario::copy);
        step("a failed copy leaves the connection usable",
            PgJdbcScenario::failedCopy);
        step("notices arrive", PgJdbcScenario::notices);
        step("a cancel ends the query it is meant for",
            PgJdbcScenario::cancel);
        step("timeouts end their statement only", PgJdbcScenario::timeouts);
        step("a read-only transaction is read-only",
            PgJdbcScenario::isolation);
        step("a crowd gets its own answers only", PgJdbcScenario::crowd);
        System.exit(failed == 0 ? 0 : 1);
    }
}
