import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;

/**
 * What an exporter in Java does with the console: the same question again and
 * again, until the driver prepares it and wants its numbers in binary.
 */
public class PgJdbcConsole {
    public static void main(String[] arguments) throws Exception {
        try (Connection link = DriverManager.getConnection(arguments[0])) {
            for (int i = 0; i < 10; i++) {
                try (PreparedStatement show =
                         link.prepareStatement("SHOW STATS");
                     ResultSet found = show.executeQuery()) {
                    while (found.next())
                        System.out.println(found.getString("database") + " "
                            + found.getLong("total_query_count"));
                }
            }
            System.out.println(link.isValid(10) ? "valid" : "not valid");
        }
    }
}
