import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/**
 * pgjdbc while the schema changes: the Java player of
 * ../test_plans_drivers.py, which says what a player does. A statement is
 * prepared on the server at its first use, and binary from the second on.
 */
public class PgJdbcPlans {
    static final int CLIENTS = Integer.parseInt(System.getenv("CLIENTS"));
    static final int ROUNDS = Integer.parseInt(System.getenv("ROUNDS"));

    static class Client {
        final Connection conn;
        final PreparedStatement statement;

        Client() throws Exception {
            URI url = new URI(System.getenv("DATABASE_URL"));
            String[] user = url.getUserInfo().split(":", 2);
            Properties properties = new Properties();
            properties.setProperty("user", user[0]);
            properties.setProperty("password", user[1]);
            properties.setProperty("prepareThreshold", "1");
            conn = DriverManager.getConnection("jdbc:postgresql://"
                + url.getHost() + ":" + url.getPort() + url.getPath(),
                properties);
            statement = conn.prepareStatement("SELECT * FROM thing");
        }

        static String quoted(String text) {
            return "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"")
                .replace("\n", " ") + "\"";
        }

        String row() {
            List<String> pairs = new ArrayList<>();
            try (ResultSet result = statement.executeQuery()) {
                ResultSetMetaData columns = result.getMetaData();
                result.next();
                for (int at = 1; at <= columns.getColumnCount(); at++)
                    pairs.add(quoted(columns.getColumnLabel(at)) + ": "
                        + quoted(result.getString(at)));
            } catch (SQLException error) {
                pairs.add("\"error\": " + quoted(error.getSQLState() + " "
                    + error.getMessage()));
            }
            return quoted("{" + String.join(", ", pairs) + "}");
        }

        void run(Set<String> seen) {
            for (int round = 0; round < ROUNDS; round++)
                seen.add(row());
        }
    }

    static Thread start(Client client, Set<String> seen) {
        Thread thread = new Thread(() -> {
            try {
                Client mine = client != null ? client : new Client();
                mine.run(seen);
                if (client == null)
                    mine.conn.close();
            } catch (Exception error) {
                error.printStackTrace(System.out);
                Runtime.getRuntime().halt(1);
            }
        });
        thread.start();
        return thread;
    }

    public static void main(String[] arguments) throws Exception {
        BufferedReader words =
            new BufferedReader(new InputStreamReader(System.in));
        List<Client> clients = new ArrayList<>();
        for (int number = 0; number < CLIENTS; number++)
            clients.add(new Client());
        System.out.println("ready");
        while ("round".equals(words.readLine())) {
            Set<String> old = ConcurrentHashMap.newKeySet();
            Set<String> now = ConcurrentHashMap.newKeySet();
            List<Thread> threads = new ArrayList<>();
            for (Client client : clients)
                threads.add(start(client, old));
            for (int number = 0; number < 2; number++)
                threads.add(start(null, now));
            for (Thread thread : threads)
                thread.join();
            System.out.println("did [[" + String.join(", ", old) + "], ["
                + String.join(", ", now) + "]]");
        }
        for (Client client : clients)
            client.conn.close();
    }
}
