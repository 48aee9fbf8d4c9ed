/*
 * load: clients for what pgbench cannot do.
 *
 *      load [options] MODE CONNINFO
 *
 * One thread, one epoll, any number of non-blocking libpq connections:
 *
 *      connect -> log in -> query -> answer -> what the mode says
 *
 *   hold   log in (and, with -q, run a query), then stay, idle.
 *   busy   log in and stay; query, and query again (-t: at a pace).
 *   work   the same with transactions: BEGIN, three queries, COMMIT.
 *   churn  connect, query once, leave; and again. One slot a client.
 *   burst  all at once; each opens a transaction and keeps it, so that
 *          each needs a server of its own, until everybody has one.
 *
 *   -n CLIENTS   how many (1)
 *   -p PARALLEL  hold, busy: how many log in at a time (64)
 *   -q           hold: run a query each
 *   -s KINDS     settings in the startup packet, of so many kinds: with 1
 *                they are the same for all, with CLIENTS no two agree
 *   -t PACE_MS   busy: a query of each client so often; 0, which is the
 *                rule: as soon as the one before is answered
 *
 * What it finds it says as lines of JSON. The first one comes when all have
 * arrived (churn: at once):
 *
 *      {"event": "ready", "clients": ..., "failed": ..., "seconds": ...,
 *       "p50_us": ..., "p99_us": ..., "max_us": ...}
 *
 * with the time each needed from its connect until it was settled. Then it
 * obeys its standard input, so that whoever drives it can look at clocks
 * and memory in between. The first line starts the queries of busy and
 * churn; each further line ends a phase and begins the next, and the phase
 * that has ended is told with the time a query (busy) or a connection with
 * its query (churn) has taken:
 *
 *      {"event": "phase", "operations": ..., "failed": ..., ...}
 *
 * At the end of its input it leaves, as a program does that is killed: the
 * connections just close. Reasons of failures go to standard error, the
 * first few of them.
 */
#include <err.h>
#include <errno.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_A_TURN	256
#define FAILURES_TOLD	5
#define RETRY_NS	UINT64_C(10000000)	/* churn, after a failure */

enum state {
	CLIENT_UNBORN,			/* not begun to connect */
	CLIENT_CONNECTING,
	CLIENT_IDLE,
	CLIENT_QUERYING,
	CLIENT_FAILED,			/* its end; churn tries again */
};

struct client {
	PGconn *conn;
	enum state state;
	bool settled;			/* counted among those who arrived */
	bool refused;			/* the query's answer is an error */
	unsigned step;			/* work: of the transaction */
	uint64_t began_ns;		/* this operation */
	uint64_t missed_ns;		/* when it was to query; 0: it did */
};

enum kind { KIND_HOLD, KIND_BUSY, KIND_WORK, KIND_CHURN, KIND_BURST };

struct mode {
	enum kind kind;
	const char *name;
	const char *query;
	bool at_once;			/* ignores -p */
	void (*logged_in)(struct client *client);
	void (*answered)(struct client *client);
};

/* Times of one phase, in microseconds; sorted when they are reported. */
struct samples {
	uint32_t *us;
	size_t count, room;
	unsigned failed;
	uint64_t began_ns;
};

static int epoll_fd;
static const struct mode *mode;
static const char *conninfo;
static struct client *clients;
static unsigned client_count = 1, parallel = 64, kinds;
static bool query_first;
static uint64_t pace_ns;		/* 0: query when answered */

static unsigned born, arrived;		/* settled or failed for good */
static bool running;			/* told to begin */
static struct samples samples;

/*
 * With a pace each client has its turn once a pace, one after the other in
 * even steps, whatever became of the turns before.
 */
static unsigned next_turn;
static uint64_t next_turn_ns;

static uint64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return ((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
}

static bool
mode_is_churn(void)
{
	return (mode->kind == KIND_CHURN);
}

static bool
mode_is_steady(void)
{
	return (mode->kind == KIND_BUSY || mode->kind == KIND_WORK);
}

/* --- what was found ---------------------------------------------------- */

static void
samples_restart(void)
{
	samples.count = 0;
	samples.failed = 0;
	samples.began_ns = now_ns();
}

static void
samples_add(uint64_t began_ns)
{
	if (samples.count == samples.room) {
		samples.room = samples.room == 0 ? 4096 : samples.room * 2;
		samples.us = realloc(samples.us,
		    samples.room * sizeof(*samples.us));
		if (samples.us == NULL)
			err(1, "realloc");
	}
	samples.us[samples.count++] =
	    (uint32_t)((now_ns() - began_ns) / 1000);
}

static int
compare_us(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

	return ((a > b) - (a < b));
}

/* The smallest time that `percent` of all do not exceed. */
static uint32_t
samples_percentile(unsigned percent)
{
	size_t rank;

	if (samples.count == 0)
		return (0);
	rank = (samples.count * percent + 99) / 100;
	return (samples.us[rank == 0 ? 0 : rank - 1]);
}

static void
samples_report(const char *event)
{
	double seconds = (double)(now_ns() - samples.began_ns) / 1e9;

	if (samples.count > 0)
		qsort(samples.us, samples.count, sizeof(*samples.us),
		    compare_us);
	printf("{\"event\": \"%s\", \"clients\": %u, \"operations\": %zu, "
	    "\"failed\": %u, \"seconds\": %.6f, \"p50_us\": %u, "
	    "\"p99_us\": %u, \"max_us\": %u}\n", event, client_count,
	    samples.count, samples.failed, seconds, samples_percentile(50),
	    samples_percentile(99), samples_percentile(100));
	fflush(stdout);
	samples_restart();
}

/* --- one client -------------------------------------------------------- */

/*
 * libpq may close its socket and open another while it connects. The new
 * one often has the old one's number, and epoll has forgotten that number
 * with the close: hence add what cannot be modified.
 */
static void
client_watch(struct client *client, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = client };
	int fd = PQsocket(client->conn);

	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event) == 0)
		return;
	if (errno != ENOENT ||
	    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		err(1, "epoll_ctl");
}

static void
client_arrive(struct client *client)
{
	if (client->settled)
		return;
	client->settled = true;
	if (++arrived == client_count)
		samples_report("ready");
}

/* A slot of churn is tried again at its next turn; others are out. */
static void
client_fail(struct client *client)
{
	static unsigned told;

	if (told++ < FAILURES_TOLD)
		warnx("%s", PQerrorMessage(client->conn));
	samples.failed++;
	PQfinish(client->conn);
	client->conn = NULL;
	client->state = CLIENT_FAILED;
	if (!mode_is_churn())
		client_arrive(client);
}

static void
client_connect_go_on(struct client *client, PostgresPollingStatusType status)
{
	switch (status) {
	case PGRES_POLLING_READING:
		client_watch(client, EPOLLIN);
		break;
	case PGRES_POLLING_WRITING:
		client_watch(client, EPOLLOUT);
		break;
	case PGRES_POLLING_OK:
		client_watch(client, EPOLLIN);
		PQsetnonblocking(client->conn, 1);
		client->state = CLIENT_IDLE;
		mode->logged_in(client);
		break;
	default:
		client_fail(client);
	}
}

static const char *
client_conninfo(const struct client *client)
{
	static char text[1024];
	unsigned kind;

	if (kinds == 0)
		return (conninfo);
	kind = (unsigned)(client - clients) % kinds;
	snprintf(text, sizeof(text), "%s options='-c work_mem=%ukB "
	    "-c search_path=kind_%u,public'", conninfo, 1000 + kind, kind);
	return (text);
}

static void
client_connect(struct client *client)
{
	client->began_ns = now_ns();
	client->state = CLIENT_CONNECTING;
	client->conn = PQconnectStart(client_conninfo(client));
	if (client->conn == NULL)
		errx(1, "PQconnectStart: no memory");
	if (PQstatus(client->conn) == CONNECTION_BAD)
		client_fail(client);
	else
		client_connect_go_on(client, PGRES_POLLING_WRITING);
}

static void
client_flush(struct client *client)
{
	switch (PQflush(client->conn)) {
	case 0:
		break;
	case 1:
		client_watch(client, EPOLLIN | EPOLLOUT);
		break;
	default:
		client_fail(client);
	}
}

static const char *const transaction[] = {
	"BEGIN", "SELECT 1", "SELECT 1", "SELECT 1", "COMMIT",
};

static void
client_query(struct client *client)
{
	client->state = CLIENT_QUERYING;
	client->refused = false;
	if (PQsendQuery(client->conn, mode->kind == KIND_WORK ?
	    transaction[client->step] : mode->query) != 1)
		client_fail(client);
	else
		client_flush(client);
}

/*
 * True when everything up to ReadyForQuery has come: only then does libpq
 * say NULL. Before each result it has to be asked whether it would wait.
 */
static bool
client_take_results(struct client *client)
{
	PGresult *result;

	while (PQisBusy(client->conn) == 0) {
		result = PQgetResult(client->conn);
		if (result == NULL)
			return (true);
		if (PQresultStatus(result) == PGRES_FATAL_ERROR)
			client->refused = true;
		PQclear(result);
	}
	return (false);
}

/* Nothing is asked, so what comes is an end, or a notice. */
static void
client_read_unasked(struct client *client)
{
	if (PQconsumeInput(client->conn) != 1 ||
	    PQstatus(client->conn) == CONNECTION_BAD)
		client_fail(client);
}

static void
client_read_answer(struct client *client, uint32_t events)
{
	if ((events & EPOLLOUT) != 0) {
		client_watch(client, EPOLLIN);
		client_flush(client);
		if (client->state != CLIENT_QUERYING)
			return;
	}
	if (PQconsumeInput(client->conn) != 1) {
		client_fail(client);
		return;
	}
	if (!client_take_results(client))
		return;
	if (client->refused) {
		client_fail(client);
		return;
	}
	client->state = CLIENT_IDLE;
	mode->answered(client);
}

static void
client_serve(struct client *client, uint32_t events)
{
	switch (client->state) {
	case CLIENT_CONNECTING:
		client_connect_go_on(client, PQconnectPoll(client->conn));
		break;
	case CLIENT_QUERYING:
		client_read_answer(client, events);
		break;
	case CLIENT_IDLE:
		client_read_unasked(client);
		break;
	case CLIENT_UNBORN:
	case CLIENT_FAILED:
		break;
	}
}

/* --- the modes --------------------------------------------------------- */

static void
settle(struct client *client)
{
	samples_add(client->began_ns);
	client_arrive(client);
}

static void
hold_logged_in(struct client *client)
{
	if (query_first)
		client_query(client);
	else
		settle(client);
}

/* Its time counts from when it was to be, not from when it could be. */
static void
client_operate(struct client *client, uint64_t due_ns)
{
	client->began_ns = due_ns;
	client->missed_ns = 0;
	client_query(client);
}

static void
busy_answered(struct client *client)
{
	samples_add(client->began_ns);
	if (pace_ns == 0)
		client_operate(client, now_ns());
	else if (client->missed_ns != 0)
		client_operate(client, client->missed_ns);
}

static void
work_answered(struct client *client)
{
	if (++client->step < sizeof(transaction) / sizeof(transaction[0])) {
		client_query(client);
		return;
	}
	client->step = 0;
	busy_answered(client);
}

static void
churn_answered(struct client *client)
{
	samples_add(client->began_ns);
	PQfinish(client->conn);
	client_connect(client);
}

static const struct mode modes[] = {
	{ KIND_HOLD, "hold", "SELECT 1", false, hold_logged_in, settle },
	{ KIND_BUSY, "busy", "SELECT 1", false, settle, busy_answered },
	{ KIND_WORK, "work", NULL, false, settle, work_answered },
	{ KIND_CHURN, "churn", "SELECT 1", true,
	    client_query, churn_answered },
	{ KIND_BURST, "burst", "BEGIN", true, client_query, settle },
};

static const struct mode *
find_mode(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (strcmp(modes[i].name, name) == 0)
			return (&modes[i]);
	}
	errx(2, "no such mode: %s", name);
}

static void
choose_mode(const char *name)
{
	mode = find_mode(name);
	if (mode_is_churn())
		pace_ns = RETRY_NS;
	if (mode->at_once)
		parallel = client_count;
}

/* --- all of them ------------------------------------------------------- */

static void
begin_operations(void)
{
	unsigned i;

	running = true;
	samples_restart();
	next_turn_ns = samples.began_ns;
	for (i = 0; i < client_count; i++) {
		if (mode_is_churn())
			client_connect(&clients[i]);
		else if (mode_is_steady() && pace_ns == 0 &&
		    clients[i].state == CLIENT_IDLE)
			client_operate(&clients[i], samples.began_ns);
	}
}

/* False at the end of the input. */
static bool
obey_input(void)
{
	char lines[256];
	ssize_t got, i;

	got = read(STDIN_FILENO, lines, sizeof(lines));
	if (got <= 0)
		return (false);
	for (i = 0; i < got; i++) {
		if (lines[i] != '\n')
			continue;
		if (running)
			samples_report("phase");
		else
			begin_operations();
	}
	return (true);
}

static void
client_take_turn(struct client *client, uint64_t due_ns)
{
	if (mode_is_churn()) {
		if (client->state == CLIENT_FAILED)
			client_connect(client);
	} else if (client->state == CLIENT_IDLE) {
		client_operate(client, due_ns);
	} else if (client->missed_ns == 0) {
		client->missed_ns = due_ns;
	}
}

/* Those whose turn has come; the time until the next. NULL: no turns. */
static const struct timespec *
take_turns(void)
{
	static struct timespec left;
	uint64_t now;

	if (pace_ns == 0 || !running)
		return (NULL);
	now = now_ns();
	while (next_turn_ns <= now) {
		client_take_turn(&clients[next_turn], next_turn_ns);
		next_turn = (next_turn + 1) % client_count;
		next_turn_ns += pace_ns / client_count;
	}
	left.tv_sec = (time_t)((next_turn_ns - now) / 1000000000u);
	left.tv_nsec = (long)((next_turn_ns - now) % 1000000000u);
	return (&left);
}

static void
connect_more_clients(void)
{
	if (mode_is_churn())
		return;
	while (born < client_count && born - arrived < parallel)
		client_connect(&clients[born++]);
}

static void
serve_until_told(void)
{
	struct epoll_event events[EVENTS_A_TURN];
	int count, i;

	for (;;) {
		connect_more_clients();
		count = epoll_pwait2(epoll_fd, events, EVENTS_A_TURN,
		    take_turns(), NULL);
		for (i = 0; i < count; i++) {
			if (events[i].data.ptr != NULL)
				client_serve(events[i].data.ptr,
				    events[i].events);
			else if (!obey_input())
				return;
		}
	}
}

static void
watch_input(void)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event) != 0)
		err(1, "standard input has to be a pipe or a terminal");
}

static void
allow_many_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		err(1, "getrlimit");
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		err(1, "setrlimit");
	if (limit.rlim_max < client_count + 16)
		errx(1, "%u clients, but only %ju files (ulimit -n)",
		    client_count, (uintmax_t)limit.rlim_max);
}

static unsigned
parse_count(const char *text)
{
	char *end;
	unsigned long number = strtoul(text, &end, 10);

	if (*text == '\0' || *end != '\0' || number > 1000000)
		errx(2, "not a number to be used here: %s", text);
	return ((unsigned)number);
}

static void
parse_options(int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "n:p:qs:t:")) != -1) {
		switch (option) {
		case 'n':
			client_count = parse_count(optarg);
			break;
		case 'p':
			parallel = parse_count(optarg);
			break;
		case 'q':
			query_first = true;
			break;
		case 's':
			kinds = parse_count(optarg);
			break;
		case 't':
			pace_ns = parse_count(optarg) * UINT64_C(1000000);
			break;
		default:
			exit(2);
		}
	}
	if (argc - optind != 2)
		errx(2, "usage: load [-q] [-n CLIENTS] [-p PARALLEL] "
		    "[-s KINDS] [-t PACE_MS] hold|busy|work|churn|burst "
		    "CONNINFO");
	choose_mode(argv[optind]);
	conninfo = argv[optind + 1];
}

int
main(int argc, char **argv)
{
	parse_options(argc, argv);
	allow_many_files();
	epoll_fd = epoll_create1(0);
	if (epoll_fd < 0)
		err(1, "epoll_create1");
	clients = calloc(client_count, sizeof(*clients));
	if (clients == NULL)
		err(1, "calloc");
	watch_input();
	samples_restart();
	if (mode_is_churn())
		samples_report("ready");
	serve_until_told();
	return (0);
}
