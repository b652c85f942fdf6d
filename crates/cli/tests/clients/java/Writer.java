// Writes numbered rows with JDBC: see ../README.md.

import java.net.URI;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.stream.LongStream;

public class Writer {
    static final String INSERT = "INSERT INTO written VALUES (?, ?)";
    static volatile boolean ended = false;

    interface Way {
        void write(Connection connection, String name, long[] numbers) throws SQLException;
    }

    static void one(Connection connection, String name, long[] numbers) throws SQLException {
        try (PreparedStatement insert = connection.prepareStatement(INSERT)) {
            for (long number : numbers) {
                insert.setString(1, name);
                insert.setLong(2, number);
                insert.executeUpdate();
            }
        }
    }

    static void transaction(Connection connection, String name, long[] numbers)
            throws SQLException {
        in(connection, () -> one(connection, name, numbers));
    }

    static void batch(Connection connection, String name, long[] numbers) throws SQLException {
        in(connection, () -> {
            try (PreparedStatement insert = connection.prepareStatement(INSERT)) {
                for (long number : numbers) {
                    insert.setString(1, name);
                    insert.setLong(2, number);
                    insert.addBatch();
                }
                insert.executeBatch();
            }
        });
    }

    interface Statements {
        void run() throws SQLException;
    }

    static void in(Connection connection, Statements statements) throws SQLException {
        connection.setAutoCommit(false);
        try {
            statements.run();
            connection.commit();
        } catch (SQLException error) {
            if (!connection.isClosed()) connection.rollback();
            throw error;
        } finally {
            if (!connection.isClosed()) connection.setAutoCommit(true);
        }
    }

    static void reads(Connection connection, String name, long[] numbers) throws SQLException {
        if (ask(connection, "SELECT " + numbers[0]).equals("" + numbers[0])) return;
        throw new IllegalStateException("another answer than expected");
    }

    static String ask(Connection connection, String query) throws SQLException {
        try (ResultSet answer = connection.createStatement().executeQuery(query)) {
            answer.next();
            return answer.getString(1);
        }
    }

    /** `settings` are those of the driver: which of PostgreSQL's protocols it uses, and when. */
    static void work(String uri, String name, String settings, int count, Way way) {
        try (Connection connection = connect(uri, name, settings)) {
            connection.createStatement().execute("SET written.mark = '" + name + "'");
            connection.createStatement().execute("PREPARE doubled AS SELECT $1::int * 2");
            for (long first = 0; !ended; first += count) {
                long[] numbers = LongStream.range(first, first + count).toArray();
                String rows = java.util.Arrays.toString(numbers);
                try {
                    way.write(connection, name, numbers);
                    say(name, "\"acknowledged\": " + rows);
                } catch (SQLException error) {
                    String text = ", \"text\": " + quoted(error.toString());
                    if (connection.isClosed()) {
                        say(name, "\"lost\": " + rows + text);
                        return;
                    }
                    say(name, "\"failed\": " + rows
                        + ", \"sqlstate\": " + quoted(error.getSQLState()) + text);
                }
                Thread.sleep(10);
            }
            String mark = ask(connection, "SHOW written.mark");
            String doubled = ask(connection, "EXECUTE doubled(21)");
            say(name, "\"ended\": {\"mark\": " + quoted(mark) + ", \"doubled\": " + doubled + "}");
        } catch (Exception error) {
            say(name, "\"lost\": [], \"text\": " + quoted(error.toString()));
        }
    }

    static Connection connect(String uri, String name, String settings) throws Exception {
        URI parts = new URI(uri);
        String[] user = parts.getUserInfo().split(":", 2);
        Properties properties = new Properties();
        properties.setProperty("user", user[0]);
        properties.setProperty("password", user[1]);
        properties.setProperty("ApplicationName", name);
        String where = parts.getHost() + ":" + parts.getPort() + parts.getPath();
        return DriverManager.getConnection("jdbc:postgresql://" + where + "?" + settings, properties);
    }

    static String quoted(String text) {
        return "\"" + ("" + text).replaceAll("[\\p{Cntrl}\"\\\\]+", " ") + "\"";
    }

    static synchronized void say(String name, String event) {
        System.out.println("{\"client\": " + quoted(name) + ", " + event + "}");
    }

    public static void main(String[] arguments) throws Exception {
        String uri = arguments[0];
        List<Thread> all = new ArrayList<>();
        all.add(new Thread(() ->
            work(uri, "jdbc simple", "preferQueryMode=simple", 1, Writer::one)));
        all.add(new Thread(() -> work(uri, "jdbc prepared", "prepareThreshold=1", 1, Writer::one)));
        all.add(new Thread(() ->
            work(uri, "jdbc transaction", "prepareThreshold=5", 2, Writer::transaction)));
        all.add(new Thread(() -> work(uri, "jdbc batch", "prepareThreshold=1", 5, Writer::batch)));
        all.add(new Thread(() -> work(uri, "jdbc reads", "prepareThreshold=5", 1, Writer::reads)));
        all.forEach(Thread::start);
        while (System.in.read() >= 0) {}
        ended = true;
        for (Thread thread : all) thread.join();
    }
}
