/* Listening sockets, names to addresses, and asking over libpq. */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/ask.h"
#include "net/dns.h"
#include "net/listen.h"
#include "net/loop.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/*
 * Names under .test are answered here, all others by the C library. The list
 * is the library's in any case, so that freeaddrinfo() is right for it.
 */
static const char *_Atomic test_address;	/* NULL = look-ups fail */
static _Atomic unsigned test_lookups;

int
getaddrinfo(const char *restrict host, const char *restrict service,
    const struct addrinfo *restrict hints, struct addrinfo **restrict ret)
{
	static int (*real)(const char *, const char *,
	    const struct addrinfo *, struct addrinfo **);
	const char *address = atomic_load(&test_address);

	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
	if (host == NULL || strstr(host, ".test") == NULL)
		return real(host, service, hints, ret);
	atomic_fetch_add(&test_lookups, 1);
	if (address == NULL)
		return EAI_NONAME;
	return real(address, service, hints, ret);
}

/* The real clock, and what the test adds. */
static _Atomic uint64_t time_added_us;

static uint64_t
shifted_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000
	    + atomic_load(&time_added_us);
}

static struct loop *loop;

static int
setup(void **state)
{
	(void)state;
	clock_set_source(shifted_clock);
	loop = loop_create("test");
	return loop == NULL;
}

static int
teardown(void **state)
{
	(void)state;
	loop_destroy(loop);
	loop_helpers_stop();
	clock_set_source(NULL);
	return 0;
}

/*
 * Listening
 */

static struct {
	unsigned count;
	int fd;
	bool is_unix;
	struct loop *next;		/* NULL: goes on where it is */
} accepted;

static struct loop *
on_accepted(void *arg, struct loop *here, int fd, bool is_unix)
{
	(void)arg;
	if (accepted.count++ > 0)
		close(accepted.fd);
	accepted.fd = fd;
	accepted.is_unix = is_unix;
	loop_stop(here);
	return accepted.next != NULL ? accepted.next : here;
}

static struct listen_settings
listen_on(const char *addresses, const char *unix_dir)
{
	return (struct listen_settings){
		.addresses = addresses, .unix_dir = unix_dir, .backlog = 16,
		.unix_mode = 0700, .unix_group = "", .port = 0,
	};
}

static struct listener *
listener_start(const struct listen_settings *settings)
{
	char why[256] = "";
	struct listener *listener = listener_create(loop, settings,
	    on_accepted, NULL, why, sizeof(why));

	if (listener == NULL)
		fail_msg("%s", why);
	return listener;
}

static void
listener_refused(const struct listen_settings *settings, const char *expected)
{
	char why[256] = "";

	assert_null(listener_create(loop, settings, on_accepted, NULL, why,
	    sizeof(why)));
	assert_string_equal(why, expected);
}

static unsigned
port_of(const struct listener *listener)
{
	char text[200];

	listener_print(listener, text, sizeof(text));
	assert_non_null(strrchr(text, ':'));
	return (unsigned)strtoul(strrchr(text, ':') + 1, NULL, 10);
}

static int
connect_to(const struct dns_answer *answer)
{
	int fd = socket(answer->address[0].any.sa_family, SOCK_STREAM |
	    SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	if (connect(fd, &answer->address[0].any, answer->length[0]) == 0)
		return fd;
	close(fd);
	return -1;
}

/* Through dns_resolve(), which so is shown to name the same socket. */
static int
connect_host(const char *host, unsigned port)
{
	struct dns_request request = { .done = NULL };

	assert_true(dns_resolve(loop, &request, host, port));
	return connect_to(&request.answer);
}

static void
expect_accept(bool is_unix)
{
	accepted.count = 0;
	loop_run(loop);
	assert_int_equal(accepted.count, 1);
	assert_int_equal(accepted.is_unix, is_unix);
}

static void
test_accepted_sockets_are_ready_for_use(void **state)
{
	struct listen_settings settings = listen_on("127.0.0.1", "");
	struct listener *listener = listener_start(&settings);
	int client = connect_host("127.0.0.1", port_of(listener));
	int nodelay = 0;
	socklen_t len = sizeof(nodelay);

	(void)state;
	assert_true(client >= 0);
	expect_accept(false);
	assert_true(fcntl(accepted.fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(accepted.fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(getsockopt(accepted.fd, IPPROTO_TCP, TCP_NODELAY,
	    &nodelay, &len), 0);
	assert_int_not_equal(nodelay, 0);
	close(accepted.fd);
	close(client);
	listener_destroy(listener);
}

static void
test_a_name_that_repeats_an_address_is_no_conflict(void **state)
{
	struct listen_settings settings = listen_on("127.0.0.1", "");
	struct listener *listener = listener_start(&settings);
	char text[200], expected[200], why[200];

	(void)state;
	settings.port = port_of(listener);
	snprintf(why, sizeof(why), "cannot listen on 127.0.0.1:%u: Address "
	    "already in use", settings.port);
	listener_refused(&settings, why);
	listener_destroy(listener);

	settings.addresses = " 127.0.0.1, same.test ,127.0.0.1 ";
	atomic_store(&test_address, "127.0.0.1");
	listener = listener_start(&settings);
	listener_print(listener, text, sizeof(text));
	snprintf(expected, sizeof(expected), "127.0.0.1:%u", settings.port);
	assert_string_equal(text, expected);
	listener_destroy(listener);
}

static void
test_a_star_is_every_address(void **state)
{
	struct listen_settings settings = listen_on("*", "");
	struct listener *listener = listener_start(&settings);
	char text[400];

	(void)state;
	listener_print(listener, text, sizeof(text));
	assert_non_null(strstr(text, "0.0.0.0:"));
	listener_destroy(listener);
}

static void
test_what_cannot_be_listened_on_is_told(void **state)
{
	struct listen_settings settings = listen_on("", "");

	(void)state;
	listener_refused(&settings, "nothing to listen on");
	settings.addresses = "none.test";
	atomic_store(&test_address, NULL);
	listener_refused(&settings, "cannot listen on none.test: Name or "
	    "service not known");
	settings = listen_on("", "/nonexistent");
	listener_refused(&settings, "cannot listen on /nonexistent/.s.PGSQL"
	    ".0: No such file or directory");
	settings = listen_on("", "/tmp");
	settings.unix_group = "no such group";
	listener_refused(&settings, "cannot listen on /tmp/.s.PGSQL.0: there "
	    "is no group \"no such group\"");
	assert_int_equal(access("/tmp/.s.PGSQL.0", F_OK), -1);
}

static void
test_the_unix_socket_has_its_mode_and_goes_away(void **state)
{
	char dir[] = "/tmp/test_net.XXXXXX", path[200];
	struct listen_settings settings;
	struct listener *listener;
	struct stat status;
	int client;

	(void)state;
	assert_non_null(mkdtemp(dir));
	settings = listen_on("", dir);
	settings.port = 21251;
	settings.unix_mode = 0750;
	listener = listener_start(&settings);
	snprintf(path, sizeof(path), "%s/.s.PGSQL.21251", dir);
	assert_int_equal(lstat(path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0750);
	client = connect_host(dir, 21251);
	assert_true(client >= 0);
	expect_accept(true);
	close(accepted.fd);
	close(client);
	listener_destroy(listener);
	assert_int_equal(access(path, F_OK), -1);
	rmdir(dir);
}

static void
test_a_dead_ones_unix_socket_is_taken_over_a_live_ones_not(void **state)
{
	char dir[] = "/tmp/test_net.XXXXXX", path[100], why[300];
	struct listen_settings settings;
	struct listener *first, *second;
	struct sockaddr_un local = { .sun_family = AF_UNIX };
	int dead, fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	settings = listen_on("", dir);
	snprintf(path, sizeof(path), "%s/.s.PGSQL.0", dir);
	snprintf(local.sun_path, sizeof(local.sun_path), "%s", path);

	/* Killed: the file is there, nobody listens. */
	dead = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(dead, (struct sockaddr *)&local,
	    sizeof(local)), 0);
	close(dead);
	first = listener_start(&settings);

	snprintf(why, sizeof(why), "cannot listen on %s: another process "
	    "listens there", path);
	listener_refused(&settings, why);
	assert_int_equal(access(path, F_OK), 0);

	/* Somebody else's file by now: it stays. */
	assert_int_equal(unlink(path), 0);
	second = listener_start(&settings);
	listener_destroy(first);
	assert_int_equal(access(path, F_OK), 0);
	listener_destroy(second);
	assert_int_equal(access(path, F_OK), -1);

	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	snprintf(why, sizeof(why), "cannot listen on %s: a file of that name "
	    "exists, and is not a socket", path);
	listener_refused(&settings, why);
	assert_int_equal(unlink(path), 0);
	rmdir(dir);
}

static void
test_an_abstract_socket_has_no_file(void **state)
{
	char dir[64];
	struct listen_settings settings;
	struct listener *listener;
	int client;

	(void)state;
	snprintf(dir, sizeof(dir), "@test-net-%d", (int)getpid());
	settings = listen_on("", dir);
	listener = listener_start(&settings);
	client = connect_host(dir, 0);
	assert_true(client >= 0);
	expect_accept(true);
	close(accepted.fd);
	close(client);
	listener_destroy(listener);
	assert_int_equal(connect_host(dir, 0), -1);
}

static void
on_stop(struct loop_task *task)
{
	(void)task;
	loop_stop(loop);
}

/* Runs what is due now. */
static void
run_turns(unsigned count)
{
	struct loop_task task;

	for (; count > 0; count--) {
		loop_task_init(&task, on_stop);
		loop_defer(loop, &task);
		loop_run(loop);
	}
}

static void
test_a_paused_listener_leaves_connections_waiting(void **state)
{
	struct listen_settings settings = listen_on("127.0.0.1", "");
	struct listener *listener = listener_start(&settings);
	int client;

	(void)state;
	listener_pause(listener);
	client = connect_host("127.0.0.1", port_of(listener));
	assert_true(client >= 0);
	accepted.count = 0;
	run_turns(5);
	assert_int_equal(accepted.count, 0);
	listener_resume(listener);
	expect_accept(false);
	close(accepted.fd);
	close(client);
	listener_destroy(listener);
}

/* A loop beside the one of all tests; both belong to this thread. */
static void
loop_swap(struct loop **other)
{
	struct loop *was = loop;

	loop = *other;
	*other = was;
}

static void
test_a_listener_goes_to_the_loop_that_is_named(void **state)
{
	struct listen_settings settings = listen_on("127.0.0.1", "");
	struct listener *listener = listener_start(&settings);
	struct loop *other = loop_create("other");
	int clients[2];

	(void)state;
	accepted.next = other;
	clients[0] = connect_host("127.0.0.1", port_of(listener));
	expect_accept(false);
	close(accepted.fd);
	clients[1] = connect_host("127.0.0.1", port_of(listener));
	accepted.count = 0;
	run_turns(5);
	assert_int_equal(accepted.count, 0);
	loop_swap(&other);
	expect_accept(false);
	close(accepted.fd);
	accepted.next = NULL;
	listener_destroy(listener);
	loop_swap(&other);
	loop_destroy(other);
	close(clients[0]);
	close(clients[1]);
}

static void
test_a_listener_is_closed_wherever_it_has_gone(void **state)
{
	struct listen_settings settings = listen_on("127.0.0.1", "");
	struct listener *listener = listener_start(&settings);
	struct loop *other = loop_create("other");
	unsigned port = port_of(listener);
	int client;

	(void)state;
	accepted.next = other;
	client = connect_host("127.0.0.1", port);
	listener_close(listener);	/* read when it has left this loop */
	expect_accept(false);
	close(accepted.fd);
	accepted.next = NULL;
	loop_swap(&other);
	run_turns(1);
	assert_int_equal(connect_host("127.0.0.1", port), -1);
	listener_destroy(listener);
	loop_swap(&other);
	loop_destroy(other);
	close(client);
}

static void
on_stop_timer(struct loop_timer *timer)
{
	(void)timer;
	loop_stop(loop);
}

static void
test_without_descriptors_it_rests_and_goes_on(void **state)
{
	struct listen_settings settings = listen_on("127.0.0.1", "");
	struct listener *listener;
	struct rlimit was, none;
	struct log_settings quiet = { .to_stderr = false };
	struct log_settings loud = { .to_stderr = true };
	struct loop_timer timer;
	uint64_t turns;
	int client;

	(void)state;
	/* valgrind keeps descriptors of its own, beyond the limit. */
	if (getenv("UNDER_VALGRIND") != NULL)
		skip();

	listener = listener_start(&settings);
	client = connect_host("127.0.0.1", port_of(listener));
	assert_true(client >= 0);
	log_setup(&quiet);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	none = was;
	none.rlim_cur = 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	accepted.count = 0;
	turns = loop_turn_count(loop);
	/* A loop that spins takes thousands of turns until then. */
	loop_timer_init(&timer, on_stop_timer);
	loop_timer_set(loop, &timer, clock_now_us() + 50000);
	loop_run(loop);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	assert_true(loop_turn_count(loop) - turns < 20);
	assert_int_equal(accepted.count, 0);
	expect_accept(false);
	log_setup(&loud);
	close(accepted.fd);
	close(client);
	listener_destroy(listener);
}

/*
 * Names
 */

static unsigned resolved_count;

static void
on_resolved(struct dns_request *request)
{
	(void)request;
	resolved_count++;
	loop_stop(loop);
}

/* Asks and waits; returns whether a look-up was made. */
static unsigned
resolve(struct dns_request *request, const char *host, unsigned port)
{
	unsigned before = atomic_load(&test_lookups);

	unsigned before_count = resolved_count;

	*request = (struct dns_request){ .done = on_resolved };
	if (!dns_resolve(loop, request, host, port)) {
		while (resolved_count == before_count)
			loop_run(loop);
		assert_int_equal(resolved_count, before_count + 1);
	}
	return atomic_load(&test_lookups) - before;
}

static void
expect_address(const struct dns_request *request, const char *host,
    unsigned port)
{
	char text[64];
	unsigned got;

	assert_int_equal(request->answer.count, 1);
	address_print(&request->answer.address[0], text, sizeof(text), &got);
	assert_string_equal(text, host);
	assert_int_equal(got, port);
}

static void
test_addresses_need_no_look_up(void **state)
{
	struct dns_request request = { .done = NULL };
	static const char path[] = "/run/pg/.s.PGSQL.5433";

	(void)state;
	assert_true(dns_resolve(loop, &request, "10.1.2.3", 5432));
	expect_address(&request, "10.1.2.3", 5432);
	assert_int_equal(request.answer.length[0],
	    sizeof(struct sockaddr_in));
	assert_true(dns_resolve(loop, &request, "fe80::1", 1));
	expect_address(&request, "fe80::1", 1);
	assert_true(dns_resolve(loop, &request, "/run/pg", 5433));
	assert_string_equal(request.answer.address[0].local.sun_path, path);
	assert_true(dns_resolve(loop, &request, "@x", 5433));
	assert_memory_equal(request.answer.address[0].local.sun_path,
	    "\0x/.s.PGSQL.5433", 17);
	assert_int_equal(request.answer.length[0],
	    offsetof(struct sockaddr_un, sun_path) + 16);
	dns_configure(15000000, 15000000, "/default");
	assert_true(dns_resolve(loop, &request, "", 5433));
	assert_string_equal(request.answer.address[0].local.sun_path,
	    "/default/.s.PGSQL.5433");
	dns_configure(15000000, 15000000, "");
	assert_true(dns_resolve(loop, &request, "", 5433));
	assert_int_equal(request.answer.count, 0);
	assert_string_equal(request.answer.why, "no host is given, and there "
	    "is no unix_socket_dir");
	dns_configure(15000000, 15000000, "/tmp");
}

static void
test_names_too_long_are_refused(void **state)
{
	struct dns_request request = { .done = NULL };
	char name[400];

	(void)state;
	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_true(dns_resolve(loop, &request, name, 1));
	assert_string_equal(request.answer.why, "the name is too long");
	name[0] = '/';
	name[150] = '\0';
	assert_true(dns_resolve(loop, &request, name, 1));
	assert_string_equal(request.answer.why,
	    "the unix socket's path is too long");
}

static void
test_a_name_is_looked_up_once_in_its_time(void **state)
{
	struct dns_request request;
	unsigned names, pending;

	(void)state;
	dns_clear();
	dns_configure(15000000, 5000000, "/tmp");
	atomic_store(&test_address, "10.0.0.1");
	assert_int_equal(resolve(&request, "a.test", 5432), 1);
	expect_address(&request, "10.0.0.1", 5432);
	assert_int_equal(resolve(&request, "A.Test", 6000), 0);
	expect_address(&request, "10.0.0.1", 6000);

	atomic_store(&test_address, "10.0.0.2");
	atomic_fetch_add(&time_added_us, 14000000);
	assert_int_equal(resolve(&request, "a.test", 1), 0);
	expect_address(&request, "10.0.0.1", 1);
	atomic_fetch_add(&time_added_us, 2000000);
	assert_int_equal(resolve(&request, "a.test", 1), 1);
	expect_address(&request, "10.0.0.2", 1);
	dns_counts(&names, &pending);
	assert_int_equal(names, 1);
	assert_int_equal(pending, 0);
	dns_clear();
}

static void
test_the_last_good_answer_outlives_a_failure(void **state)
{
	struct dns_request request;

	(void)state;
	dns_clear();
	dns_configure(15000000, 5000000, "/tmp");
	atomic_store(&test_address, NULL);
	assert_int_equal(resolve(&request, "b.test", 1), 1);
	assert_int_equal(request.answer.count, 0);
	assert_string_equal(request.answer.why,
	    "Name or service not known");
	/* Failures are remembered as well. */
	assert_int_equal(resolve(&request, "b.test", 1), 0);
	assert_int_equal(request.answer.count, 0);

	atomic_store(&test_address, "10.0.0.1");
	atomic_fetch_add(&time_added_us, 6000000);
	assert_int_equal(resolve(&request, "b.test", 1), 1);
	expect_address(&request, "10.0.0.1", 1);
	atomic_store(&test_address, NULL);
	atomic_fetch_add(&time_added_us, 16000000);
	assert_int_equal(resolve(&request, "b.test", 1), 1);
	expect_address(&request, "10.0.0.1", 1);
	/* ... for the shorter time. */
	atomic_fetch_add(&time_added_us, 4000000);
	assert_int_equal(resolve(&request, "b.test", 1), 0);
	atomic_fetch_add(&time_added_us, 2000000);
	assert_int_equal(resolve(&request, "b.test", 1), 1);
	dns_clear();
}

static unsigned several_left;

static void
on_one_of_several(struct dns_request *request)
{
	expect_address(request, "10.0.0.7", request->port);
	if (--several_left == 0)
		loop_stop(loop);
}

static void
test_many_who_ask_at_once_all_get_the_answer(void **state)
{
	struct dns_request requests[20];
	unsigned lookups = atomic_load(&test_lookups);

	(void)state;
	dns_clear();
	atomic_store(&test_address, "10.0.0.7");
	several_left = 0;
	for (unsigned i = 0; i < COUNT(requests); i++) {
		requests[i].done = on_one_of_several;
		if (!dns_resolve(loop, &requests[i], "c.test", 100 + i))
			several_left++;
		else
			expect_address(&requests[i], "10.0.0.7", 100 + i);
	}
	if (several_left > 0)
		loop_run(loop);
	assert_int_equal(atomic_load(&test_lookups) - lookups, 1);
	dns_clear();
}

static void
on_each_name(void *arg, const char *host, int64_t ttl_us,
    const struct dns_answer *answer)
{
	unsigned *count = arg;

	assert_string_equal(host, "d.test");
	assert_in_range(ttl_us, 1, 15000000);
	assert_int_equal(answer->count, 1);
	(*count)++;
}

static void
test_the_cache_can_be_shown(void **state)
{
	struct dns_request request;
	unsigned count = 0;

	(void)state;
	dns_clear();
	atomic_store(&test_address, "10.0.0.1");
	resolve(&request, "d.test", 1);
	dns_each(on_each_name, &count);
	assert_int_equal(count, 1);
	dns_clear();
}

/*
 * Asking
 */

struct asked {
	unsigned count;
	enum ask_result result;
	char error[512], sqlstate[6], cell[100];
	struct ask *destroy;		/* in the answer */
};

static void
on_answered(void *arg, const struct ask_answer *answer)
{
	struct asked *asked = arg;

	asked->count++;
	asked->result = answer->result;
	snprintf(asked->error, sizeof(asked->error), "%s",
	    answer->error != NULL ? answer->error : "");
	snprintf(asked->sqlstate, sizeof(asked->sqlstate), "%s",
	    answer->sqlstate);
	if (answer->rows > 0) {
		assert_int_equal(answer->columns, 2);
		snprintf(asked->cell, sizeof(asked->cell), "%s",
		    answer->cell(answer, 0, 0));
		assert_null(answer->cell(answer, 0, 1));
	}
	if (asked->destroy != NULL)
		ask_destroy(asked->destroy);
	asked->destroy = NULL;
	loop_stop(loop);
}

static struct ask_settings
ask_at(const char *host, unsigned port)
{
	return (struct ask_settings){
		.host = host, .port = port, .dbname = "d", .user = "u",
		.sslmode = "disable", .connect_timeout_us = 60000000,
		.query_timeout_us = 60000000, .idle_us = 60000000,
	};
}

/* One question to these settings. */
static struct asked
ask_once(const struct ask_settings *settings)
{
	struct ask *ask = ask_create(loop, settings);
	struct asked asked = { 0 };

	assert_non_null(ask);
	ask_query(ask, "select 1", 0, NULL, on_answered, &asked);
	assert_int_equal(asked.count, 0);
	loop_run(loop);
	ask_destroy(ask);
	assert_int_equal(asked.count, 1);
	return asked;
}

/* A port where nobody listens, for sure: bound and not listening. */
static int
closed_port(unsigned *ret_port)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len),
	    0);
	*ret_port = ntohs(address.sin_port);
	return fd;
}

static void
test_nobody_there_is_unreachable(void **state)
{
	unsigned port;
	int fd = closed_port(&port);
	struct ask_settings settings = ask_at("127.0.0.1", port);
	struct asked asked = ask_once(&settings);

	(void)state;
	assert_int_equal(asked.result, ASK_UNREACHABLE);
	assert_non_null(strstr(asked.error, "refused"));
	settings.host = "/nonexistent";
	asked = ask_once(&settings);
	assert_int_equal(asked.result, ASK_UNREACHABLE);
	assert_non_null(strstr(asked.error, "/nonexistent/.s.PGSQL."));
	atomic_store(&test_address, NULL);
	settings.host = "e.test";
	asked = ask_once(&settings);
	assert_int_equal(asked.result, ASK_UNREACHABLE);
	assert_string_equal(asked.error, "Name or service not known");
	dns_clear();
	close(fd);
}

static void
test_everybody_who_waits_is_told(void **state)
{
	unsigned port;
	int fd = closed_port(&port);
	struct ask_settings settings = ask_at("127.0.0.1", port);
	struct ask *ask = ask_create(loop, &settings);
	struct asked asked[3] = { 0 };

	(void)state;
	for (unsigned i = 0; i < COUNT(asked); i++)
		ask_query(ask, "select 1", 0, NULL, on_answered, &asked[i]);
	loop_run(loop);
	for (unsigned i = 0; i < COUNT(asked); i++)
		assert_int_equal(asked[i].count, 1);
	ask_destroy(ask);
	close(fd);
}

static void
test_destroying_answers_first_even_from_an_answer(void **state)
{
	unsigned port;
	int fd = closed_port(&port);
	struct ask_settings settings = ask_at("127.0.0.1", port);
	struct ask *ask = ask_create(loop, &settings);
	struct asked first = { 0 }, second = { 0 };

	(void)state;
	ask_query(ask, "select 1", 0, NULL, on_answered, &first);
	ask_destroy(ask);
	assert_int_equal(first.count, 1);
	assert_string_equal(first.error, "closed");

	ask = ask_create(loop, &settings);
	first = (struct asked){ .destroy = ask };
	ask_query(ask, "select 1", 0, NULL, on_answered, &first);
	ask_query(ask, "select 1", 0, NULL, on_answered, &second);
	loop_run(loop);
	assert_int_equal(first.count, 1);
	assert_int_equal(second.count, 1);
	assert_string_equal(second.error, "closed");

	/* While a name is being looked up, which cannot be called back. */
	atomic_store(&test_address, "127.0.0.1");
	settings.host = "f.test";
	ask = ask_create(loop, &settings);
	first = (struct asked){ 0 };
	ask_query(ask, "select 1", 0, NULL, on_answered, &first);
	run_turns(1);
	ask_destroy(ask);
	assert_int_equal(first.count, 1);
	for (unsigned names, pending = 1; pending > 0;) {
		run_turns(1);
		dns_counts(&names, &pending);
	}
	loop_helpers_stop();
	run_turns(2);
	dns_clear();
	close(fd);
}

static void
test_a_password_stays_here_without_a_verified_certificate(void **state)
{
	struct ask_settings settings = ask_at("192.0.2.1", 5432);
	struct asked asked;

	(void)state;
	settings.password = "secret";
	settings.sslmode = "require";
	settings.connect_timeout_us = 5000000;
	asked = ask_once(&settings);
	assert_int_equal(asked.result, ASK_UNREACHABLE);
	assert_non_null(strstr(asked.error, "a password is not sent there"));
	/* The name counts by what it resolves to. */
	atomic_store(&test_address, "192.0.2.1");
	settings.host = "localhost.test";
	asked = ask_once(&settings);
	assert_non_null(strstr(asked.error, "a password is not sent there"));
	dns_clear();
}

static void
test_a_silent_server_is_given_up(void **state)
{
	struct listen_settings where = listen_on("127.0.0.1", "");
	struct listener *listener = listener_start(&where);
	struct ask_settings settings = ask_at("127.0.0.1",
	    port_of(listener));
	struct asked asked;

	(void)state;
	listener_pause(listener);
	settings.connect_timeout_us = 1000;
	asked = ask_once(&settings);
	assert_int_equal(asked.result, ASK_UNREACHABLE);
	assert_string_equal(asked.error, "the connection took too long");
	listener_destroy(listener);
}

/*
 * A server that has learned its part by heart: it lets everybody in and has
 * one answer for every question, a line of its script.
 */
struct server {
	pthread_t thread;
	int listening;
	unsigned port;
	const char *const *answers;	/* each with its length in front */
	const size_t *lengths;
	unsigned count;
	unsigned connections;		/* to be served */
};

#define LOGIN "R\0\0\0\x08\0\0\0\0" "K\0\0\0\x0c\0\0\0\1\0\0\0\1" \
	"Z\0\0\0\5I"
#define ROW \
	"1\0\0\0\4" "2\0\0\0\4" \
	"T\0\0\0\x2e\0\2" \
	"a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0" \
	"b\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"
#define CELLS "D\0\0\0\x11\0\2\0\0\0\3one\xff\xff\xff\xff"
#define END "C\0\0\0\rSELECT 1\0" "Z\0\0\0\5I"
#define REFUSAL "E\0\0\0\x1dSERROR\0C42P01\0Mno table\0\0" "Z\0\0\0\5I"
#define NOTICE "N\0\0\0\x1bSNOTICE\0C00000\0Mhello\0\0"

/* Reads until it has a whole batch, which ends with Sync. */
static bool
read_batch(int fd, bool is_startup)
{
	char block[4096];
	size_t len = 0;
	ssize_t got;

	for (;;) {
		got = read(fd, block + len, sizeof(block) - len);
		if (got <= 0)
			return false;
		len += (size_t)got;
		if (is_startup || (len >= 5 &&
		    memcmp(block + len - 5, "S\0\0\0\4", 5) == 0))
			return true;
	}
}

static void *
server_main(void *arg)
{
	struct server *server = arg;
	unsigned at = 0;

	for (unsigned i = 0; i < server->connections; i++) {
		int fd = accept(server->listening, NULL, NULL);

		if (fd < 0 || !read_batch(fd, true) ||
		    write(fd, LOGIN, sizeof(LOGIN) - 1) < 0)
			break;
		while (at < server->count && read_batch(fd, false)) {
			size_t len = server->lengths[at];

			if (len > 0 && write(fd, server->answers[at], len) < 0)
				break;
			at++;
			if (len == 0)
				break;
		}
		close(fd);
	}
	return NULL;
}

static void
server_start(struct server *server)
{
	server->listening = closed_port(&server->port);
	assert_int_equal(listen(server->listening, 8), 0);
	assert_int_equal(pthread_create(&server->thread, NULL, server_main,
	    server), 0);
}

static void
server_end(struct server *server)
{
	pthread_join(server->thread, NULL);
	close(server->listening);
}

static void
test_rows_and_errors_come_back(void **state)
{
	static const char rows[] = NOTICE ROW CELLS END, error[] = REFUSAL;
	const char *const answers[] = { rows, error, rows, "" };
	const size_t lengths[] = {
		sizeof(rows) - 1, sizeof(error) - 1, sizeof(rows) - 1, 0,
	};
	struct server server = {
		.answers = answers, .lengths = lengths, .count = 4,
		.connections = 1,
	};
	struct ask_settings settings;
	struct ask *ask;
	struct asked asked[4] = { 0 };
	const char *params[] = { "x", NULL };

	(void)state;
	server_start(&server);
	settings = ask_at("127.0.0.1", server.port);
	ask = ask_create(loop, &settings);
	for (unsigned i = 0; i < COUNT(asked); i++)
		ask_query(ask, "select $1, $2", 2, params, on_answered,
		    &asked[i]);
	while (asked[3].count == 0)
		loop_run(loop);
	assert_int_equal(asked[0].result, ASK_ROWS);
	assert_string_equal(asked[0].cell, "one");
	assert_int_equal(asked[1].result, ASK_FAILED);
	assert_string_equal(asked[1].error, "no table");
	assert_string_equal(asked[1].sqlstate, "42P01");
	assert_int_equal(asked[2].result, ASK_ROWS);
	/* The server closed instead of an answer. */
	assert_int_equal(asked[3].result, ASK_UNREACHABLE);
	assert_string_not_equal(asked[3].error, "");
	for (unsigned i = 0; i < COUNT(asked); i++)
		assert_int_equal(asked[i].count, 1);
	ask_destroy(ask);
	server_end(&server);
}

/* The connection breaks between two questions: the second one gets another
 * connection, for nothing of it was sent. */
static void
test_a_connection_that_broke_while_idle_is_replaced(void **state)
{
	static const char rows[] = ROW CELLS END;
	const char *const answers[] = { rows };
	const size_t lengths[] = { sizeof(rows) - 1 };
	struct server first = {
		.answers = answers, .lengths = lengths, .count = 1,
		.connections = 1,
	};
	struct server again = first;
	struct ask_settings settings;
	struct asked asked = { 0 };
	struct ask *ask;

	(void)state;
	server_start(&first);
	settings = ask_at("127.0.0.1", first.port);
	ask = ask_create(loop, &settings);
	ask_query(ask, "select 1", 0, NULL, on_answered, &asked);
	loop_run(loop);
	assert_int_equal(asked.result, ASK_ROWS);
	pthread_join(first.thread, NULL);

	again.listening = first.listening;
	assert_int_equal(pthread_create(&again.thread, NULL, server_main,
	    &again), 0);
	asked = (struct asked){ 0 };
	ask_query(ask, "select 1", 0, NULL, on_answered, &asked);
	loop_run(loop);
	assert_int_equal(asked.result, ASK_ROWS);
	assert_string_equal(asked.cell, "one");
	ask_destroy(ask);
	server_end(&again);
}

static void
on_pair(void *arg, const char *keyword, const char *value)
{
	char *text = arg;
	size_t len = strlen(text);

	snprintf(text + len, 200 - len, "%s=%s ", keyword, value);
}

static void
test_connection_strings(void **state)
{
	char text[200] = "", why[200] = "";

	(void)state;
	assert_true(ask_parse_conninfo("postgres://u:p@h:1/d", on_pair, text,
	    why, sizeof(why)));
	assert_string_equal(text, "user=u password=p dbname=d host=h port=1 ");
	assert_false(ask_parse_conninfo("postgres://h/?x=1", on_pair, text,
	    why, sizeof(why)));
	assert_string_equal(why, "not a connection string that libpq "
	    "understands: invalid URI query parameter: \"x\"");
	assert_false(ask_parse_conninfo("postgres://u:a/b?secret=x@h/d",
	    on_pair, text, why, sizeof(why)));
	assert_null(strstr(why, "secret"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepted_sockets_are_ready_for_use),
		cmocka_unit_test(
		    test_a_name_that_repeats_an_address_is_no_conflict),
		cmocka_unit_test(test_a_star_is_every_address),
		cmocka_unit_test(test_what_cannot_be_listened_on_is_told),
		cmocka_unit_test(
		    test_the_unix_socket_has_its_mode_and_goes_away),
		cmocka_unit_test(
		test_a_dead_ones_unix_socket_is_taken_over_a_live_ones_not),
		cmocka_unit_test(test_an_abstract_socket_has_no_file),
		cmocka_unit_test(
		    test_a_paused_listener_leaves_connections_waiting),
		cmocka_unit_test(
		    test_a_listener_goes_to_the_loop_that_is_named),
		cmocka_unit_test(
		    test_a_listener_is_closed_wherever_it_has_gone),
		cmocka_unit_test(
		    test_without_descriptors_it_rests_and_goes_on),
		cmocka_unit_test(test_addresses_need_no_look_up),
		cmocka_unit_test(test_names_too_long_are_refused),
		cmocka_unit_test(test_a_name_is_looked_up_once_in_its_time),
		cmocka_unit_test(
		    test_the_last_good_answer_outlives_a_failure),
		cmocka_unit_test(
		    test_many_who_ask_at_once_all_get_the_answer),
		cmocka_unit_test(test_the_cache_can_be_shown),
		cmocka_unit_test(test_nobody_there_is_unreachable),
		cmocka_unit_test(test_everybody_who_waits_is_told),
		cmocka_unit_test(
		    test_destroying_answers_first_even_from_an_answer),
		cmocka_unit_test(
		    test_a_password_stays_here_without_a_verified_certificate),
		cmocka_unit_test(test_a_silent_server_is_given_up),
		cmocka_unit_test(test_rows_and_errors_come_back),
		cmocka_unit_test(
		    test_a_connection_that_broke_while_idle_is_replaced),
		cmocka_unit_test(test_connection_strings),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
