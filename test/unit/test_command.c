/*
 * Commands beside the loop. The commands are real, and mostly sh; time passes
 * only where a test lets it. The name of a test is the sentence it proves.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/command.h"
#include "net/loop.h"

#define SECOND_US ((uint64_t)1000000)

/* A kernel that is too old for pidfd, if a test wants it. */
static bool no_pidfd;

long
syscall(long number, ...)
{
	static long (*real)(long, ...);
	va_list args;
	long a[3];

	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "syscall");
	if (number == SYS_pidfd_open && no_pidfd) {
		errno = ENOSYS;
		return -1;
	}
	va_start(args, number);
	for (unsigned i = 0; i < 3; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	return real(number, a[0], a[1], a[2]);
}

static uint64_t now_us;

static uint64_t
fake_now(void)
{
	return now_us;
}

static struct loop *loop;

static int
begin(void **state)
{
	(void)state;
	now_us = 1000 * SECOND_US;
	clock_set_source(fake_now);
	loop = loop_create("test");
	return loop == NULL;
}

static int
end(void **state)
{
	(void)state;
	loop_destroy(loop);
	clock_set_source(NULL);
	no_pidfd = false;
	return 0;
}

/*
 * How one went
 */

struct went {
	unsigned count;
	enum command_end end;
	int number;
	bool succeeded, is_cut;
	uint64_t took_us;
	char output[COMMAND_OUTPUT + 1];
	char described[100];
	struct command *destroy;	/* from `ended` */
};

static void
on_ended(void *arg, const struct command_result *result)
{
	struct went *went = arg;
	struct buf text = { 0 };

	went->count++;
	went->end = result->end;
	went->number = result->number;
	went->succeeded = command_succeeded(result);
	went->is_cut = result->output_is_cut;
	went->took_us = result->took_us;
	snprintf(went->output, sizeof(went->output), "%.*s",
	    SPAN_ARG(result->output));
	command_describe(result, &text);
	snprintf(went->described, sizeof(went->described), "%.*s",
	    SPAN_ARG(buf_span(&text)));
	buf_finish(&text);
	command_destroy(went->destroy);
	went->destroy = NULL;
	loop_stop(loop);
}

static struct command *
start(char *const *argv, const char *const *environment, uint64_t timeout_us,
    struct went *went)
{
	struct command_settings settings = {
		.argv = argv, .environment = environment,
		.timeout_us = timeout_us,
	};
	struct command *command = command_start(loop, &settings, on_ended,
	    went);

	assert_non_null(command);
	assert_int_equal(went->count, 0);
	return command;
}

static struct command *
start_script(const char *script, uint64_t timeout_us, struct went *went)
{
	char *argv[] = { "sh", "-c", (char *)(uintptr_t)script, NULL };

	return start(argv, NULL, timeout_us, went);
}

static struct went
run_script(const char *script)
{
	struct went went = { 0 };
	struct command *command = start_script(script, 0, &went);

	loop_run(loop);
	assert_int_equal(went.count, 1);
	command_destroy(command);
	return went;
}

/* A fake millisecond a turn, and the loop never sleeps, until it is stopped
 * or told is true. */
struct ticker {
	struct loop_task task;
	bool (*told)(void *arg);
	void *arg;
};

static void
tick(struct loop_task *task)
{
	struct ticker *ticker = container_of(task, struct ticker, task);

	now_us += 1000;
	if (ticker->told != NULL && ticker->told(ticker->arg))
		loop_stop(loop);
	else
		loop_defer(loop, task);
}

static void
let_time_pass(bool (*told)(void *arg), void *arg)
{
	struct ticker ticker = { .told = told, .arg = arg };

	loop_task_init(&ticker.task, tick);
	loop_defer(loop, &ticker.task);
	loop_run(loop);
	loop_task_cancel(&ticker.task);
}

static bool
has_no_children(void *arg)
{
	siginfo_t info;

	(void)arg;
	return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == -1 &&
	    errno == ECHILD;
}

/*
 * The tests
 */

static void
test_how_it_ended_is_told(void **state)
{
	struct went went = run_script("exit 0");

	(void)state;
	assert_true(went.succeeded);
	went = run_script("exit 3");
	assert_false(went.succeeded);
	assert_int_equal(went.end, COMMAND_EXITED);
	assert_int_equal(went.number, 3);
	assert_string_equal(went.described, "exited with status 3");
	went = run_script("kill -9 $$");
	assert_false(went.succeeded);
	assert_int_equal(went.end, COMMAND_SIGNALED);
	assert_int_equal(went.number, 9);
	assert_string_equal(went.described, "was killed by signal 9 (Killed)");
}

static void
test_what_cannot_be_started_is_told_too(void **state)
{
	char *argv[] = { "/no/such/command", NULL };
	struct went went = { 0 };
	struct command *command = start(argv, NULL, 0, &went);

	(void)state;
	loop_run(loop);
	assert_int_equal(went.count, 1);
	assert_false(went.succeeded);
	assert_int_equal(went.end, COMMAND_NOT_STARTED);
	assert_int_equal(went.number, ENOENT);
	assert_string_equal(went.described,
	    "could not be started: No such file or directory");
	command_destroy(command);
	assert_true(has_no_children(NULL));
}

static void
test_what_it_says_is_kept(void **state)
{
	struct went went = run_script("echo out; echo err >&2; read x; "
	    "echo \"<$x>\"; exit 1");

	(void)state;
	/* Nothing to read from. */
	assert_string_equal(went.output, "out\nerr\n<>\n");
	assert_false(went.is_cut);
	went = run_script("i=0; while [ $i -lt 30000 ]; do "
	    "echo line $i; i=$((i + 1)); done");
	assert_true(went.is_cut);
	assert_int_equal(strlen(went.output), COMMAND_OUTPUT);
	assert_string_equal(went.output + COMMAND_OUTPUT - 22,
	    "line 29998\nline 29999\n");
}

static void
test_the_environment_is_ours_and_the_additions(void **state)
{
	char *argv[] = { "sh", "-c", "echo $HERE $ALSO $HEREBY; "
	    "env | grep -c ^HERE=", NULL };
	const char *const environment[] = { "HERE=new", "ALSO=also", NULL };
	struct went went = { 0 };
	struct command *command;

	(void)state;
	setenv("HERE", "old", 1);
	setenv("HEREBY", "kept", 1);
	command = start(argv, environment, 0, &went);
	loop_run(loop);
	assert_string_equal(went.output, "new also kept\n1\n");
	command_destroy(command);
}

/* Neither those that close on exec nor those that somebody forgot. */
static void
test_no_file_of_ours_is_open_in_it(void **state)
{
	int fds[2], open_fd = open("/dev/null", O_RDONLY);
	struct went went;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	/* ls has /proc/self/fd itself open. */
	went = run_script("ls /proc/self/fd");
	assert_string_equal(went.output, "0\n1\n2\n3\n");
	close(open_fd);
	close(fds[0]);
	close(fds[1]);
}

static void
test_signals_are_as_nobody_had_touched_them(void **state)
{
	sigset_t blocked, before;
	struct went blk, ign;

	(void)state;
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigprocmask(SIG_BLOCK, &blocked, &before);
	signal(SIGPIPE, SIG_IGN);
	blk = run_script("sed -n 's/^SigBlk://p' /proc/self/status");
	ign = run_script("sed -n 's/^SigIgn://p' /proc/self/status");
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, &before, NULL);
	assert_int_equal(strtoull(blk.output, NULL, 16), 0);
	/* 32 and 33 are the C library's own. */
	assert_int_equal(strtoull(ign.output, NULL, 16) & ~((uint64_t)3 <<
	    31), 0);
}

static void
test_the_loop_goes_on_meanwhile(void **state)
{
	struct went slow = { 0 }, quick;
	struct command *command = start_script("exec sleep 1000", 0, &slow);

	(void)state;
	quick = run_script("echo quick");
	assert_string_equal(quick.output, "quick\n");
	assert_int_equal(slow.count, 0);
	command_destroy(command);
	let_time_pass(has_no_children, NULL);
	assert_int_equal(slow.count, 0);
}

/* A fifo, which tells when a script is as far as a test wants it, and when
 * nobody who has it open lives any more. */
struct fifo {
	char folder[32], path[40];
	int fd;
};

static void
fifo_create(struct fifo *fifo)
{
	snprintf(fifo->folder, sizeof(fifo->folder),
	    "/tmp/test_command-XXXXXX");
	assert_non_null(mkdtemp(fifo->folder));
	snprintf(fifo->path, sizeof(fifo->path), "%s/fifo", fifo->folder);
	assert_int_equal(mkfifo(fifo->path, 0600), 0);
	assert_int_equal(setenv("FIFO", fifo->path, 1), 0);
}

/* Waits for somebody to open it, and to write a line into it. */
static void
fifo_wait_line(struct fifo *fifo)
{
	char c = '\0';

	fifo->fd = open(fifo->path, O_RDONLY | O_CLOEXEC);
	while (c != '\n')
		assert_int_equal(read(fifo->fd, &c, 1), 1);
}

static void
fifo_wait_end(struct fifo *fifo)
{
	char c;

	assert_int_equal(read(fifo->fd, &c, 1), 0);
	close(fifo->fd);
	unlink(fifo->path);
	rmdir(fifo->folder);
}

static bool
is_past(void *arg)
{
	return now_us >= *(const uint64_t *)arg;
}

static void
test_one_that_takes_too_long_is_told_to_go(void **state)
{
	struct went went = { 0 };
	struct fifo fifo;
	struct command *command;
	uint64_t end_us = now_us + 61 * SECOND_US;

	(void)state;
	fifo_create(&fifo);
	command = start_script("trap 'echo going; exit 5' TERM; "
	    "exec 3>$FIFO; echo up >&3; while :; do sleep 0.01; done",
	    60 * SECOND_US, &went);
	fifo_wait_line(&fifo);
	let_time_pass(is_past, &end_us);
	/* Told by now, and as long as this takes it is not killed. */
	if (went.count == 0)
		loop_run(loop);
	assert_int_equal(went.count, 1);
	assert_int_equal(went.end, COMMAND_TIMED_OUT);
	assert_false(went.succeeded);
	assert_int_equal(went.number, 5);
	/* The shell may have had a word on its sleep, too. */
	assert_non_null(strstr(went.output, "going\n"));
	assert_in_range(went.took_us, 60 * SECOND_US, 62 * SECOND_US);
	assert_string_equal(went.described,
	    "was killed: it took longer than it may");
	command_destroy(command);
	fifo_wait_end(&fifo);
}

/* One that ignores SIGTERM, and one in its background. */
static void
test_one_that_does_not_go_is_killed_with_all_its_group(void **state)
{
	struct went went = { 0 };
	struct fifo fifo;
	struct command *command;

	(void)state;
	fifo_create(&fifo);
	command = start_script("trap '' TERM; exec 3>$FIFO; sleep 1000 & "
	    "echo up >&3; sleep 1000; sleep 1000", 60 * SECOND_US, &went);
	fifo_wait_line(&fifo);
	let_time_pass(NULL, NULL);
	assert_int_equal(went.count, 1);
	assert_int_equal(went.end, COMMAND_TIMED_OUT);
	assert_int_equal(went.number, SIGKILL);
	assert_true(went.took_us >= 65 * SECOND_US);
	command_destroy(command);
	fifo_wait_end(&fifo);
}

/* The leader goes when it is told to; who it has left behind does not. */
static void
test_one_that_goes_takes_its_group_along(void **state)
{
	struct went went = { 0 };
	struct fifo fifo;
	struct command *command;
	uint64_t end_us = now_us + 61 * SECOND_US;

	(void)state;
	fifo_create(&fifo);
	command = start_script("exec 3>$FIFO; (trap '' TERM; echo up >&3; "
	    "sleep 1000; sleep 1000) & wait", 60 * SECOND_US, &went);
	fifo_wait_line(&fifo);
	let_time_pass(is_past, &end_us);
	if (went.count == 0)
		loop_run(loop);
	assert_int_equal(went.number, SIGTERM);
	command_destroy(command);
	fifo_wait_end(&fifo);
}

/* It may leave something behind, which has its output open. */
static void
test_its_end_counts_and_not_that_of_its_output(void **state)
{
	struct went went = run_script("sleep 1000 & echo $!");

	(void)state;
	assert_true(went.succeeded);
	assert_int_equal(kill((pid_t)strtol(went.output, NULL, 10), SIGKILL),
	    0);
}

static void
test_it_may_be_destroyed_at_any_time(void **state)
{
	struct went went = { 0 };
	struct command *command;
	char *none[] = { "/no/such/command", NULL };

	(void)state;
	command_destroy(NULL);
	command = start_script("exit 0", 0, &went);
	went.destroy = command;
	loop_run(loop);
	assert_int_equal(went.count, 1);

	went = (struct went){ 0 };
	command_destroy(start(none, NULL, 0, &went));
	command_destroy(start_script("exec sleep 1000", 0, &went));
	command = start_script("trap '' TERM; sleep 1000; sleep 1000", 0,
	    &went);
	command_destroy(command);
	let_time_pass(has_no_children, NULL);
	/* This one ends with the loop. */
	command_destroy(start_script("trap '' TERM; sleep 1000; sleep 1000",
	    0, &went));
	loop_destroy(loop);
	assert_true(has_no_children(NULL));
	assert_int_equal(went.count, 0);
	loop = loop_create("test");
}

static void
test_a_kernel_without_pidfd_will_do(void **state)
{
	struct went went = { 0 };
	struct command *command;

	(void)state;
	no_pidfd = true;
	command = start_script("echo up; exit 4", 0, &went);
	let_time_pass(NULL, NULL);
	assert_int_equal(went.count, 1);
	assert_int_equal(went.number, 4);
	assert_string_equal(went.output, "up\n");
	command_destroy(command);
}

static void
test_somebody_elses_wait_is_no_success(void **state)
{
	struct went went = { 0 };
	struct command *command;

	(void)state;
	signal(SIGCHLD, SIG_IGN);
	/* It may be gone before there is a pidfd of it. */
	command = start_script("exit 0", 0, &went);
	let_time_pass(NULL, NULL);
	signal(SIGCHLD, SIG_DFL);
	assert_int_equal(went.count, 1);
	assert_false(went.succeeded);
	command_destroy(command);
}

static void
test_running_out_of_memory_is_told(void **state)
{
	struct command_settings settings = { .argv = (char *[]){ "true",
	    NULL } };
	struct went went = { 0 };
	struct command *command;

	(void)state;
	mem_fail_nth(1);
	assert_null(command_start(loop, &settings, on_ended, &went));
	mem_fail_nth(2);
	command = command_start(loop, &settings, on_ended, &went);
	mem_fail_nth(0);
	loop_run(loop);
	assert_int_equal(went.end, COMMAND_NOT_STARTED);
	assert_int_equal(went.number, ENOMEM);
	command_destroy(command);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		TEST(test_how_it_ended_is_told),
		TEST(test_what_cannot_be_started_is_told_too),
		TEST(test_what_it_says_is_kept),
		TEST(test_the_environment_is_ours_and_the_additions),
		TEST(test_no_file_of_ours_is_open_in_it),
		TEST(test_signals_are_as_nobody_had_touched_them),
		TEST(test_the_loop_goes_on_meanwhile),
		TEST(test_one_that_takes_too_long_is_told_to_go),
		TEST(test_one_that_does_not_go_is_killed_with_all_its_group),
		TEST(test_one_that_goes_takes_its_group_along),
		TEST(test_its_end_counts_and_not_that_of_its_output),
		TEST(test_it_may_be_destroyed_at_any_time),
		TEST(test_a_kernel_without_pidfd_will_do),
		TEST(test_somebody_elses_wait_is_no_success),
		TEST(test_running_out_of_memory_is_told),
	};

	/* Its children, and the pidfds of them, are beyond valgrind. */
	if (getenv("UNDER_VALGRIND") != NULL) {
		puts("not under valgrind");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
