import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.URI;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * pgjdbc beside other drivers (see mixed.py, whose player in Java this is).
 *
 * It prepares a statement on the server, as S_1, S_2, ... on every connection
 * and BEGIN and COMMIT too, when it is used a fifth time; as DRIVER pgjdbc_1,
 * with prepareThreshold=1, when it is used the first time.
 */
public class PgJdbcMixed {
    static final String DRIVER = System.getenv("DRIVER");
    static final int CLIENTS = number("CLIENTS");
    static final int TRANSACTIONS = number("TRANSACTIONS");
    static final String[] ZONES = {"Asia/Tokyo", "America/Lima",
        "Africa/Cairo", "Australia/Perth", "Europe/Oslo", "Pacific/Fiji",
        "Asia/Kolkata"};
    static final String SETTINGS = "select current_setting("
        + "'application_name'), current_setting('TimeZone'),"
        + " current_setting('search_path')";
    static final String INSERT =
        "insert into ledger (client, round, note) values (?, ?, ?)";
    static final String READ =
        "select note from ledger where client = ? and round = ?";
    static final String ROUNDS =
        "select round from ledger where client = ? order by round";

    interface Work {
        void run(Member member) throws Exception;
    }

    static final BufferedReader words =
        new BufferedReader(new InputStreamReader(System.in));
    static final Set<String> backends = ConcurrentHashMap.newKeySet();

    static int number(String name) {
        return Integer.parseInt(System.getenv(name));
    }

    static void same(Object got, Object wanted) {
        if (!wanted.equals(got))
            throw new AssertionError("got " + got + ", wanted " + wanted);
    }

    static void fail(Throwable error) {
        error.printStackTrace(System.out);
        Runtime.getRuntime().halt(1);
    }

    static void awaitWord(String word) throws IOException {
        same(words.readLine(), word);
    }

    /** One connection, and what is to be true of its session. */
    static class Member {
        final int number;
        final String name;
        final String searchPath;
        String zone;
        Connection conn;

        Member(int number) {
            this.number = number;
            name = DRIVER + "/" + number;
            searchPath = "mixed_" + DRIVER + ", c" + number;
            zone = ZONES[number % ZONES.length];
        }

        void connect() throws Exception {
            URI url = new URI(System.getenv("DATABASE_URL"));
            String[] user = url.getUserInfo().split(":", 2);
            Properties properties = new Properties();
            properties.setProperty("user", user[0]);
            properties.setProperty("password", user[1]);
            properties.setProperty("ApplicationName", name);
            properties.setProperty("currentSchema", searchPath);
            if (DRIVER.equals("pgjdbc_1"))
                properties.setProperty("prepareThreshold", "1");
            conn = DriverManager.getConnection("jdbc:postgresql://"
                + url.getHost() + ":" + url.getPort() + url.getPath(),
                properties);
            setZone("", zone);      // what the JVM's is was set at connect
            conn.setAutoCommit(false);
        }

        void setZone(String local, String zone) throws SQLException {
            try (Statement st = conn.createStatement()) {
                st.execute("set " + local + "time zone '" + zone + "'");
            }
        }

        PreparedStatement prepare(String sql, Object... values)
                throws SQLException {
            PreparedStatement ps = conn.prepareStatement(sql);
            for (int at = 0; at < values.length; at++)
                ps.setObject(at + 1, values[at]);
            return ps;
        }

        /** The rows, columns joined by "|". */
        List<String> ask(String sql, Object... values) throws SQLException {
            List<String> rows = new ArrayList<>();
            try (PreparedStatement ps = prepare(sql, values);
                    ResultSet result = ps.executeQuery()) {
                int columns = result.getMetaData().getColumnCount();
                while (result.next()) {
                    List<String> row = new ArrayList<>();
                    for (int at = 1; at <= columns; at++)
                        row.add(result.getString(at));
                    rows.add(String.join("|", row));
                }
            }
            return rows;
        }

        void transaction(int turn) throws SQLException {
            String note = name + "/" + turn;
            int kind = turn % 4;
            String zone = this.zone;
            if (kind != 3) {
                zone = ZONES[(number + turn + 1) % ZONES.length];
                setZone(kind == 2 ? "local " : "", zone);
            }
            String[] echo = ask("select ?::text || ' for " + name
                + "', pg_backend_pid()", note).get(0).split("\\|");
            same(echo[0], note + " for " + name);
            backends.add(echo[1]);
            try (PreparedStatement ps = prepare(INSERT, number, turn, note)) {
                same(ps.executeUpdate(), 1);
            }
            same(ask(READ, number, turn), List.of(note));
            same(ask(SETTINGS), List.of(name + "|" + zone + "|"
                + searchPath));
            if (turn % 2 == 1)
                conn.rollback();
            else
                conn.commit();
            if (kind == 0)
                this.zone = zone;
        }

        /** All transactions; and in the end its rows are all there. */
        void everything() throws SQLException {
            List<String> wanted = new ArrayList<>();
            for (int turn = 0; turn < TRANSACTIONS; turn++) {
                transaction(turn);
                if (turn % 2 == 0)
                    wanted.add(String.valueOf(turn));
            }
            same(ask(ROUNDS, number), wanted);
            conn.commit();
        }
    }

    /** Each in a thread of its own, and all are done when this is. One that
     *  fails ends them all: else its transaction would keep its server. */
    static void atOnce(ExecutorService threads, List<Member> members,
            Work work) throws Exception {
        List<Future<?>> all = new ArrayList<>();
        for (Member member : members)
            all.add(threads.submit(() -> {
                try {
                    work.run(member);
                } catch (Throwable error) {
                    fail(error);
                }
            }));
        for (Future<?> one : all)
            one.get();
    }

    static void play() throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(CLIENTS);
        List<Member> members = new ArrayList<>();
        for (int number = 0; number < CLIENTS; number++)
            members.add(new Member(number));
        atOnce(threads, members, Member::connect);
        System.out.println("ready");
        awaitWord("go");
        atOnce(threads, members, Member::everything);
        System.out.println("done " + String.join(" ", backends));
        awaitWord("end");
        for (Member member : members)
            member.conn.close();
        threads.shutdown();
    }

    public static void main(String[] arguments) {
        try {
            play();
        } catch (Exception | AssertionError error) {
            fail(error);
        }
    }
}
