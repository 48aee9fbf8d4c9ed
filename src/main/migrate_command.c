/*
 * pgsluice migrate [options] -- COMMAND ...: from a shell or a CI job, before
 * a pgsluice that may be far away.
 *
 *   CONNECT, WAIT ---- the lock is ours ----> RUN ---- ended ----> its status
 *     |     |  \                               |
 *     |     |   signal: we die of it           +-- signal: passed on
 *     |   --timeout: 75                        +-- lock lost: SIGTERM, then
 *   not reached: 69, no pgsluice: 76                SIGKILL, 74
 *
 * One thread and one poll(): signals, the child's end among them, come as
 * bytes of a signalfd, the lock is the socket of net/claim.
 *
 * When the lock is lost, the next deploy may already have it. So the command
 * is stopped, which is safe in the way a Ctrl-C is: Postgres takes back what
 * was not committed. To let it go on would be two migrators at once, which is
 * what the lock is there against.
 */
#include "main/migrate_command.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/span.h"
#include "main/child.h"
#include "net/claim.h"

#define SECOND_US ((uint64_t)1000000)
/* Until a silent address is given up. */
#define CONNECT_US (30 * SECOND_US)
/* Who waits is told so after the first, and then every so often. */
#define FIRST_WORD_US SECOND_US
#define WORD_US (30 * SECOND_US)
/* From SIGTERM to SIGKILL, when the lock is lost. */
#define GRACE_US (5 * SECOND_US)

/* Our own, of sysexits.h; all others are the command's. */
enum status {
	STATUS_USAGE = 64,
	STATUS_UNREACHABLE = 69,
	STATUS_LOST = 74,
	STATUS_TIMEOUT = 75,
	STATUS_NO_PGSLUICE = 76,
	STATUS_CANNOT_RUN = 126,
	STATUS_NOT_FOUND = 127,
};

static struct {
	const char *url;
	bool url_is_given;		/* by --url */
	bool allow_direct;
	uint64_t timeout_us;		/* 0 = no end */
	char **command;

	struct claim *claim;
	struct child child;
	int signals;			/* a signalfd */
	sigset_t mask_before;
	uint64_t started_us;
	uint64_t word_us;		/* when to say something next */
	bool has_waited;		/* and said so */
	uint64_t kill_us;		/* 0 = nobody is to be killed */
} run;

static const char usage[] =
    "usage: pgsluice migrate [options] [--] COMMAND [ARGUMENT ...]\n"
    "\n"
    "Takes the migration lock of a pgsluice, runs the command, lets go, and\n"
    "exits with the command's status.\n"
    "\n"
    "  --url URL          where pgsluice is, and which database; by default\n"
    "                     the environment variable DATABASE_URL, where no\n"
    "                     ps(1) shows it. The command gets it as "
    "DATABASE_URL\n"
    "  --timeout TIME     how long to wait for the lock: 90, 5min, 1h; 0, the\n"
    "                     default, is without end\n"
    "  --allow-direct     if the URL leads to no pgsluice, run the command "
    "all\n"
    "                     the same, with nothing that keeps others out\n"
    "  -h, --help         print this and exit\n"
    "\n"
    "Exit status, other than the command's own: 64 wrong usage, 69 pgsluice\n"
    "was not reached or refused, 74 the lock was lost while the command ran,\n"
    "75 it was not ours in time, 76 this is no pgsluice, 126 the command\n"
    "cannot be run, 127 it was not found, 128+N it was killed by signal N.\n";

static void __attribute__((format(printf, 1, 2)))
say(const char *fmt, ...)
{
	char line[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	fprintf(stderr, "pgsluice migrate: %s\n", line);
}

static void
say_notice(void *arg, const char *line)
{
	(void)arg;
	run.has_waited = run.claim != NULL;	/* else of the URL */
	say("%s", line);
}

/*
 * The command line.
 */

static _Noreturn void
refuse_usage(void)
{
	fputs(usage, stderr);
	exit(STATUS_USAGE);
}

static void
parse_arguments(int argc, char **argv)
{
	static const struct option options[] = {
		{ "url", required_argument, NULL, 'U' },
		{ "timeout", required_argument, NULL, 't' },
		{ "allow-direct", no_argument, NULL, 'D' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	/* "+": what follows the command's name is the command's. */
	while ((option = getopt_long(argc, argv, "+h", options,
	    NULL)) != -1) {
		switch (option) {
		case 'U': run.url = optarg; run.url_is_given = true; break;
		case 'D': run.allow_direct = true; break;
		case 'h': fputs(usage, stdout); exit(0);
		case 't':
			if (span_parse_duration_us(span_of(optarg),
			    &run.timeout_us))
				break;
			say("--timeout: not a time such as 90, 5min or 1h: %s",
			    optarg);
			exit(STATUS_USAGE);
		default: refuse_usage();
		}
	}
	run.command = argv + optind;
	if (run.command[0] == NULL)
		refuse_usage();
	if (run.url == NULL)
		run.url = getenv("DATABASE_URL");
	if (run.url == NULL || run.url[0] == '\0') {
		say("where is pgsluice? Neither --url nor DATABASE_URL says "
		    "it");
		exit(STATUS_USAGE);
	}
}

/*
 * Signals.
 */

static const int passed_on[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };

/* Whoever started us with a signal ignored (nohup) wants it so. */
static bool
is_ignored(int number)
{
	struct sigaction action;

	return sigaction(number, NULL, &action) == 0 &&
	    action.sa_handler == SIG_IGN;
}

static bool
open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	for (size_t i = 0; i < sizeof(passed_on) / sizeof(passed_on[0]); i++)
		if (!is_ignored(passed_on[i]))
			sigaddset(&set, passed_on[i]);
	/* An ignored SIGCHLD would take the child's status away. */
	signal(SIGCHLD, SIG_DFL);
	run.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	/* Not read: it is that the terminal may be taken back. */
	sigaddset(&set, SIGTTOU);
	return run.signals != -1 &&
	    sigprocmask(SIG_BLOCK, &set, &run.mask_before) == 0;
}

/* While there is nobody to pass it on to: as if we had no handler. */
static _Noreturn void
die_of(int number)
{
	sigset_t set;

	claim_close(run.claim);
	signal(number, SIG_DFL);
	raise(number);
	sigemptyset(&set);
	sigaddset(&set, number);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	exit(128 + number);
}

static void
read_signals(void)
{
	struct signalfd_siginfo info;

	while (read(run.signals, &info, sizeof(info)) ==
	    (ssize_t)sizeof(info)) {
		int number = (int)info.ssi_signo;

		if (number == SIGCHLD)
			child_reap(&run.child);
		else if (run.child.pid > 0)
			child_signal(&run.child, number);
		else
			die_of(number);
	}
}

/*
 * Waiting.
 */

static uint64_t
waited_s(void)
{
	return (clock_now_us() - run.started_us) / SECOND_US;
}

/* Until the lock, a signal, or a time of those that are not 0. */
static void
wait_until(const uint64_t *times_us, unsigned count)
{
	struct pollfd fds[] = {
		{ .fd = run.signals, .events = POLLIN },
		{ .fd = claim_fd(run.claim),
		  .events = claim_events(run.claim) },
	};
	uint64_t now_us = clock_now_us(), next_us = UINT64_MAX;
	int wait_ms = -1;

	for (unsigned i = 0; i < count; i++)
		if (times_us[i] != 0 && times_us[i] < next_us)
			next_us = times_us[i];
	if (next_us != UINT64_MAX) {
		next_us = next_us > now_us ? next_us - now_us : 0;
		wait_ms = next_us > 3600 * SECOND_US ? 3600 * 1000 :
		    (int)((next_us + 999) / 1000);
	}
	poll(fds, 2, wait_ms);
	read_signals();
}

static void
say_waiting(void)
{
	uint64_t now_us = clock_now_us();

	if (now_us < run.word_us)
		return;
	if (!run.has_waited)
		say("waiting for the migration lock of %s",
		    claim_where(run.claim));
	else
		say("still waiting, for %" PRIu64 " s now", waited_s());
	run.has_waited = true;
	run.word_us = now_us + WORD_US;
}

static int
refuse_failed(void)
{
	const char *state = claim_sqlstate(run.claim);

	say("no migration lock: %s", claim_why(run.claim));
	/* lock_not_available: pgsluice's own patience is at its end. */
	return strcmp(state, "55P03") == 0 ? STATUS_TIMEOUT :
	    STATUS_UNREACHABLE;
}

static int
judge_direct(void)
{
	if (run.allow_direct) {
		say("warning: the URL does not lead to pgsluice (%s). There "
		    "is no lock: other migrations may run at the same time",
		    claim_where(run.claim));
		return 0;
	}
	say("the URL does not lead to pgsluice (%s): there is no lock, and "
	    "nothing would keep other migrations out. %s was not run; "
	    "--allow-direct runs it all the same", claim_where(run.claim),
	    run.command[0]);
	return STATUS_NO_PGSLUICE;
}

/* 0, or the status to exit with. */
static int
take_lock(void)
{
	uint64_t connect_us = run.started_us + CONNECT_US;
	uint64_t end_us = run.timeout_us == 0 ? UINT64_MAX :
	    run.started_us + run.timeout_us;

	run.word_us = run.started_us + FIRST_WORD_US;
	for (;;) {
		enum claim_state state = claim_step(run.claim);
		const uint64_t times_us[] = {
			run.word_us, end_us,
			state == CLAIM_CONNECTING ? connect_us : 0,
		};

		if (state == CLAIM_HELD)
			return 0;
		if (state == CLAIM_DIRECT)
			return judge_direct();
		if (state == CLAIM_FAILED)
			return refuse_failed();
		wait_until(times_us, 3);
		say_waiting();
		if (clock_now_us() >= end_us) {
			say("the migration lock of %s was not ours in time",
			    claim_where(run.claim));
			return STATUS_TIMEOUT;
		}
		if (state == CLAIM_CONNECTING && clock_now_us() >=
		    connect_us) {
			say("no answer from %s", claim_where(run.claim));
			return STATUS_UNREACHABLE;
		}
	}
}

/*
 * Running.
 */

/* Called while there is a lock to lose. */
static void
watch_lock(bool *is_lost)
{
	if (claim_step(run.claim) != CLAIM_LOST)
		return;
	*is_lost = true;
	say("THE MIGRATION LOCK IS LOST: %s", claim_why(run.claim));
	say("another migration may start now, so %s is being stopped "
	    "(SIGTERM; SIGKILL in %d s)", run.command[0],
	    (int)(GRACE_US / SECOND_US));
	child_signal(&run.child, SIGTERM);
	child_signal(&run.child, SIGCONT);
	run.kill_us = clock_now_us() + GRACE_US;
}

static int
run_command(void)
{
	bool is_lost = false;
	int error;

	if (run.url_is_given && setenv("DATABASE_URL", run.url, 1) != 0)
		error = errno;
	else
		error = child_start(&run.child, run.command,
		    &run.mask_before);
	if (error != 0) {
		say("cannot run %s: %s", run.command[0], strerror(error));
		return error == ENOENT || error == ENOTDIR ?
		    STATUS_NOT_FOUND : STATUS_CANNOT_RUN;
	}
	while (!run.child.has_ended) {
		wait_until(&run.kill_us, 1);
		if (claim_fd(run.claim) != -1)
			watch_lock(&is_lost);
		if (run.kill_us != 0 && clock_now_us() >= run.kill_us) {
			child_signal(&run.child, SIGKILL);
			run.kill_us = 0;
		}
	}
	if (!is_lost)
		return run.child.status;
	say("%s has ended, with status %d, after the lock was lost",
	    run.command[0], run.child.status);
	return STATUS_LOST;
}

int
migrate_command(int argc, char **argv)
{
	int status;

	parse_arguments(argc, argv);
	if (!open_signals()) {
		say("cannot wait for signals: %s", strerror(errno));
		return STATUS_CANNOT_RUN;
	}
	run.started_us = clock_now_us();
	run.claim = claim_open(run.url, say_notice, NULL);
	if (run.claim == NULL) {
		say("out of memory");
		return STATUS_UNREACHABLE;
	}
	status = take_lock();
	if (status == 0) {
		if (run.has_waited)
			say("the lock is ours, after %" PRIu64 " s",
			    waited_s());
		status = run_command();
	}
	claim_close(run.claim);
	return status;
}
