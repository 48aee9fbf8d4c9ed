/*
 * pgsluice: the command line, boot, signals, reload, the way out.
 *
 *   main thread     keeps the statistics' clock, does RELOAD and shutdown
 *   signal thread   waits for signals and mails them to the main thread
 *   worker threads  accept and do everything else (session/worker.c)
 *   helper threads  what would stall a loop (net/loop.h)
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "admin/console.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "conf/conf.h"
#include "main/migrate_command.h"
#include "main/version.h"
#include "net/ask.h"
#include "net/dns.h"
#include "net/listen.h"
#include "net/loop.h"
#include "net/notify.h"
#include "pool/pool.h"
#include "session/setup.h"
#include "session/worker.h"

#define STATUS_SERVING "Serving"
/* For closing what is left, once shutdown_timeout is over. */
#define LEAVE_SPARE_US 10000000

/* What the command line says. */
struct arguments {
	const char *path;		/* of the configuration, or */
	const char *url;		/* of the database */
	const char *user;		/* switch to, when started as root */
	int verbose;
	bool quiet;
	bool daemon;
};

static struct {
	struct arguments arguments;
	struct loop *loop;
	bool stopped_listening;
	pthread_mutex_t lock;		/* guards `setup`: RELOAD and SET run
					 * on a helper thread */
	struct setup *setup;		/* a reference, of the newest */
	pthread_t workers[POOL_WORKERS];
	pthread_t signals;
	struct loop_timer statistics;
	struct loop_timer deadline;	/* of a shutdown */
	char *pidfile;
} boot = { .lock = PTHREAD_MUTEX_INITIALIZER };

static const char usage[] =
    "usage: pgsluice [options] CONFIG.ini\n"
    "       pgsluice [options] --url postgres://user:password@host/db\n"
    "       pgsluice migrate [options] [--] COMMAND [ARGUMENT ...]\n"
    "\n"
    "  --url URL          serve this one database; also from the environment\n"
    "                     variable PGSLUICE_URL, where no ps(1) shows it\n"
    "  -d, --daemon       go to the background (needs pidfile and a log)\n"
    "  -u, --user NAME    switch to this user when started as root\n"
    "  -q, --quiet        do not log to standard error\n"
    "  -v, --verbose      say more; may be repeated\n"
    "      --settings     print the settings' documentation and exit\n"
    "  -V, --version      print the version and exit\n"
    "  -h, --help         print this and exit\n"
    "\n"
    "pgsluice migrate runs a command with the migration lock of a pgsluice\n"
    "held; see pgsluice migrate --help.\n";

static _Noreturn void
fail(const char *fmt, const char *detail)
{
	fprintf(stderr, "pgsluice: ");
	fprintf(stderr, fmt, detail);
	fprintf(stderr, "\n");
	exit(1);
}

/*
 * The command line.
 */

static _Noreturn void
print_settings(void)
{
	struct buf out = { 0 };

	conf_print_settings(&out);
	fwrite(out.at, 1, out.len, stdout);
	buf_finish(&out);
	exit(0);
}

static void
parse_arguments(int argc, char **argv, struct arguments *ret)
{
	static const struct option options[] = {
		{ "url", required_argument, NULL, 'U' },
		{ "daemon", no_argument, NULL, 'd' },
		{ "user", required_argument, NULL, 'u' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "settings", no_argument, NULL, 'S' },
		{ "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "du:qvVh", options,
	    NULL)) != -1) {
		switch (option) {
		case 'U': ret->url = optarg; break;
		case 'd': ret->daemon = true; break;
		case 'u': ret->user = optarg; break;
		case 'q': ret->quiet = true; break;
		case 'v': ret->verbose++; break;
		case 'S': print_settings();
		case 'V': puts(PGSLUICE_VERSION_TEXT); exit(0);
		case 'h': fputs(usage, stdout); exit(0);
		default: fputs(usage, stderr); exit(2);
		}
	}
	if (optind < argc)
		ret->path = argv[optind++];
	if (ret->path == NULL && ret->url == NULL)
		ret->url = getenv("PGSLUICE_URL");
	if (optind < argc || (ret->path == NULL) == (ret->url == NULL)) {
		fputs(usage, stderr);
		exit(2);
	}
}

/*
 * Configuration.
 */

static struct setup *
load_setup(struct buf *ret_why)
{
	const struct arguments *arguments = &boot.arguments;
	struct conf *conf = arguments->path != NULL ?
	    conf_load(arguments->path, ask_parse_conninfo, ret_why) :
	    conf_from_url(arguments->url, ask_parse_conninfo, ret_why);

	return conf == NULL ? NULL : setup_create(conf, ret_why);
}

static bool
configure_log(const struct conf_options *o)
{
	struct log_settings settings = {
		.file = o->logfile[0] != '\0' ? o->logfile : NULL,
		.to_stderr = !boot.arguments.quiet && !boot.arguments.daemon,
		.to_syslog = o->syslog,
		.syslog_ident = o->syslog_ident,
		.syslog_facility = o->syslog_facility,
		.format = (enum log_format)o->log_format,
		.verbose = o->verbose > boot.arguments.verbose ?
		    o->verbose : boot.arguments.verbose,
	};

	return log_setup(&settings);
}

static void
configure_net(const struct conf_options *o)
{
	dns_configure(o->dns_max_ttl_us, o->dns_nxdomain_ttl_us,
	    o->unix_socket_dir);
}

static void
restart_needed(void *arg, const char *name)
{
	(void)arg;
	log_warning("%s was changed: it takes effect after a restart", name);
}

/* The newest setup, +1 reference. */
static struct setup *
current_setup(void)
{
	pthread_mutex_lock(&boot.lock);
	struct setup *setup = setup_ref(boot.setup);
	pthread_mutex_unlock(&boot.lock);
	return setup;
}

/* Makes a setup the one in force; takes over the reference. Any thread. */
static void
configure(struct setup *setup)
{
	struct setup *was;

	pthread_mutex_lock(&boot.lock);
	was = boot.setup;
	boot.setup = setup_ref(setup);
	conf_each_restart_needed(was->conf, setup->conf, restart_needed,
	    NULL);
	if (!configure_log(&setup->conf->o))
		log_error("cannot open %s: %s", setup->conf->o.logfile,
		    strerror(errno));
	configure_net(&setup->conf->o);
	workers_configure(setup);
	pthread_mutex_unlock(&boot.lock);
	setup_unref(was);
}

/* RELOAD: all of the new configuration, or nothing of it. */
static bool
reload(struct buf *ret_why)
{
	notify_manager("RELOADING=1\nMONOTONIC_USEC=%llu",
	    (unsigned long long)clock_now_us());

	struct setup *setup = load_setup(ret_why);
	if (setup != NULL)
		configure(setup);
	notify_manager("READY=1\nSTATUS=%s", setup != NULL ? STATUS_SERVING :
	    "Serving; the last RELOAD was refused, see the log");
	return setup != NULL;
}

/*
 * Signals: SIGHUP reload, SIGTERM and SIGINT drain, SIGQUIT at once, SIGUSR1
 * and SIGUSR2 pause and resume.
 */

struct signal_mail {
	struct loop_mail mail;
	int number;
};

MEM_TYPE(signal_mail_type, signal_mail);

static void
stop_listening(void)
{
	if (!boot.stopped_listening)
		listener_close(process.listener);
	boot.stopped_listening = true;
}

/* The service manager would kill us before shutdown_timeout is over. */
static void
notify_leave(uint64_t limit_us)
{
	if (limit_us > 0)
		notify_manager("STOPPING=1\nSTATUS=Waiting for transactions "
		    "to end\nEXTEND_TIMEOUT_USEC=%llu",
		    (unsigned long long)(limit_us + LEAVE_SPARE_US));
	else
		notify_manager("STOPPING=1\nSTATUS=Stopping");
}

static void
leave(enum leaving how)
{
	struct setup *setup = current_setup();
	uint64_t limit_us = setup->conf->o.shutdown_timeout_us;

	setup_unref(setup);
	/* A second request, or no patience: at once. */
	if (process.leaving > STAYING && how < LEAVING_NOW)
		how = LEAVING_NOW;
	stop_listening();
	notify_leave(how < LEAVING_NOW ? limit_us : 0);
	if (limit_us > 0 && how < LEAVING_NOW)
		loop_timer_set(boot.loop, &boot.deadline,
		    clock_us() + limit_us);
	workers_leave(how);
}

static void
deadline_over(struct loop_timer *timer)
{
	(void)timer;
	log_warning("shutdown_timeout: closing %d clients in transactions",
	    process.clients);
	workers_leave(LEAVING_NOW);
}

/* The console's SHUTDOWN: on the main thread, as a signal's. */
struct leave_mail {
	struct loop_mail mail;
	enum leaving how;
};

MEM_TYPE(leave_mail_type, leave_mail);

static void
leave_read(struct loop *loop, struct loop_mail *mail)
{
	struct leave_mail *asked = container_of(mail, struct leave_mail, mail);

	(void)loop;
	leave(asked->how);
	mem_delete(&leave_mail_type, asked);
}

static void
ask_to_leave(enum leaving how)
{
	struct leave_mail *asked = mem_new(&leave_mail_type);

	if (asked == NULL)
		return;
	asked->mail.read = leave_read;
	asked->how = how;
	loop_post(boot.loop, &asked->mail);
}

static void
signal_read(struct loop *loop, struct loop_mail *mail)
{
	struct signal_mail *sent =
	    container_of(mail, struct signal_mail, mail);
	struct buf why = { 0 };

	(void)loop;
	log_info("got %s", strsignal(sent->number));
	switch (sent->number) {
	case SIGHUP:
		if (!reload(&why))
			log_error("RELOAD refused, nothing changed: %.*s",
			    (int)why.len, why.at != NULL ? why.at : "");
		break;
	case SIGTERM:
		leave(LEAVING_IDLE);
		break;
	case SIGINT:
		leave(LEAVING_SERVERS);
		break;
	case SIGQUIT:
		leave(LEAVING_NOW);
		break;
	case SIGUSR1:
		console_pause_all();
		break;
	case SIGUSR2:
		console_resume_all();
		break;
	}
	buf_finish(&why);
	mem_delete(&signal_mail_type, sent);
}

static const int signals[] = {
	SIGHUP, SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2,
};

/* Until it is cancelled, which sigwait() allows. */
static void *
signal_thread(void *arg)
{
	sigset_t *set = arg;
	int number;

	for (;;) {
		if (sigwait(set, &number) != 0)
			continue;
		struct signal_mail *sent = mem_new(&signal_mail_type);
		if (sent == NULL)
			continue;
		sent->mail.read = signal_read;
		sent->number = number;
		loop_post(boot.loop, &sent->mail);
	}
	return NULL;
}

static void
start_signals(sigset_t *set)
{
	if (pthread_create(&boot.signals, NULL, signal_thread, set) != 0)
		fail("cannot start a thread%s", "");
}

/* All threads block them; one waits for them. */
static void
block_signals(sigset_t *set)
{
	sigemptyset(set);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaddset(set, signals[i]);
	pthread_sigmask(SIG_BLOCK, set, NULL);
	signal(SIGPIPE, SIG_IGN);
	/* Inherited ignored, it would take away how our commands end. */
	signal(SIGCHLD, SIG_DFL);
}

/*
 * Boot.
 */

static void
switch_user(const char *name)
{
	struct passwd *user = getpwnam(name);

	if (user == NULL)
		fail("no such user: %s", name);
	if (initgroups(name, user->pw_gid) != 0 ||
	    setgid(user->pw_gid) != 0 || setuid(user->pw_uid) != 0)
		fail("cannot become user %s", name);
}

static void
go_to_background(const struct conf_options *o)
{
	if (o->pidfile[0] == '\0')
		fail("-d needs a pidfile%s", "");
	if (o->logfile[0] == '\0' && !o->syslog)
		fail("-d needs logfile or syslog%s", "");
	if (daemon(1, 0) != 0)
		fail("cannot go to the background: %s", strerror(errno));
}

static void
write_pidfile(const char *path)
{
	char text[32];
	int fd, len;

	if (path[0] == '\0')
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	len = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	if (fd < 0 || write(fd, text, (size_t)len) != len)
		fail("cannot write the pidfile %s", path);
	close(fd);
	boot.pidfile = mem_strdup(path);
}

/* As many descriptors as we may have. */
static void
raise_limits(const struct conf_options *o)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	if (limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	if (limit.rlim_cur < (rlim_t)o->max_client_conn + 200)
		log_warning("max_client_conn is %d, but only %llu files may "
		    "be open (ulimit -n)", o->max_client_conn,
		    (unsigned long long)limit.rlim_cur);
}

static void
start_listening(const struct conf_options *o)
{
	struct listen_settings settings = {
		.addresses = o->listen_addr,
		.port = (unsigned)o->listen_port,
		.backlog = o->listen_backlog,
		.reuse_port = o->so_reuseport,
		.defer_accept = o->tcp_defer_accept > 0,
		.tuning = worker_tuning(o),
		.unix_dir = o->unix_socket_dir,
		.unix_mode = (unsigned)o->unix_socket_mode,
		.unix_group = o->unix_socket_group,
	};
	char text[1024];

	process.inherited = settings.tuning;
	process.listener = listener_create(process.worker[0]->loop,
	    &settings, workers_accept, NULL, text, sizeof(text));
	if (process.listener == NULL)
		fail("%s", text);
	listener_print(process.listener, text, sizeof(text));
	for (char *line = text, *next; line != NULL && *line != '\0';
	    line = next) {
		next = strchr(line, '\n');
		if (next != NULL)
			*next++ = '\0';
		log_info("listening on %s", line);
	}
}

static void *
worker_thread(void *arg)
{
	worker_run(arg);
	return NULL;
}

static void
make_workers(struct setup *setup)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	int asked = setup->conf->o.workers;
	unsigned count = asked > 0 ? (unsigned)asked :
	    cores > 0 ? (unsigned)cores : 1;

	if (count > POOL_WORKERS)
		count = POOL_WORKERS;
	pools_init(count);
	process.worker_count = count;
	for (unsigned i = 0; i < count; i++) {
		process.worker[i] = worker_create(i, setup);
		if (process.worker[i] == NULL)
			fail("cannot make worker: %s", strerror(errno));
	}
	workers_prepare(setup->conf);
}

static void
start_workers(void)
{
	for (unsigned i = 0; i < process.worker_count; i++)
		if (pthread_create(&boot.workers[i], NULL, worker_thread,
		    process.worker[i]) != 0)
			fail("cannot start a thread%s", "");
}

static void
statistics_tick(struct loop_timer *timer)
{
	struct setup *setup = current_setup();

	loop_timer_set(boot.loop, timer,
	    clock_us() + setup->conf->o.stats_period_us);
	admin_stats_tick(setup->conf->o.log_stats);
	setup_unref(setup);
}

static void
start(void)
{
	const struct conf_options *o = &boot.setup->conf->o;
	static sigset_t set;

	block_signals(&set);
	prctl(PR_SET_DUMPABLE, 0);	/* secrets stay out of core files */
	boot.loop = loop_create("main");
	if (boot.loop == NULL)
		fail("cannot make an event loop: %s", strerror(errno));
	configure_net(o);
	make_workers(boot.setup);
	console_install();
	process.reload = reload;
	process.configure = configure;
	process.leave = ask_to_leave;
	process.started_us = clock_wall_us();
	start_listening(o);
	write_pidfile(o->pidfile);
	loop_timer_init(&boot.statistics, statistics_tick);
	loop_timer_init(&boot.deadline, deadline_over);
	loop_timer_set(boot.loop, &boot.statistics,
	    clock_us() + o->stats_period_us);
	raise_limits(o);
	start_workers();
	start_signals(&set);
}

static void
stop_read(struct loop *loop, struct loop_mail *mail)
{
	(void)mail;
	loop_stop(loop);
}

/* The main loop ends when the last worker has. */
static void *
wait_thread(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < process.worker_count; i++)
		pthread_join(boot.workers[i], NULL);

	static struct loop_mail last;
	last.read = stop_read;
	loop_post(boot.loop, &last);
	return NULL;
}

static void
finish(void)
{
	pthread_cancel(boot.signals);
	pthread_join(boot.signals, NULL);
	loop_timer_clear(&boot.statistics);
	loop_timer_clear(&boot.deadline);
	loop_helpers_stop();
	workers_finish();
	loop_drain(boot.loop);
	loop_destroy(boot.loop);
	if (boot.pidfile != NULL)
		unlink(boot.pidfile);
	mem_free(boot.pidfile);
	setup_unref(boot.setup);
}

int
main(int argc, char **argv)
{
	struct buf why = { 0 };
	pthread_t waiter;

	if (argc > 1 && strcmp(argv[1], "migrate") == 0)
		return migrate_command(argc - 1, argv + 1);
	parse_arguments(argc, argv, &boot.arguments);
	boot.setup = load_setup(&why);
	if (boot.setup == NULL) {
		struct span text = span_trim(buf_span(&why));
		fprintf(stderr, "%.*s\n", SPAN_ARG(text));
		exit(1);
	}
	buf_finish(&why);

	const struct conf_options *o = &boot.setup->conf->o;
	const char *user = boot.arguments.user != NULL ? boot.arguments.user :
	    o->user;
	if (geteuid() == 0 && user[0] != '\0')
		switch_user(user);
	if (!configure_log(o))
		fail("cannot open the log: %s", strerror(errno));
	if (boot.arguments.daemon)
		go_to_background(o);
	start();
	log_info("pgsluice " PGSLUICE_VERSION " is up: %u workers",
	    process.worker_count);
	notify_manager("READY=1\nSTATUS=" STATUS_SERVING);
	if (pthread_create(&waiter, NULL, wait_thread, NULL) != 0)
		fail("cannot start a thread%s", "");
	loop_run(boot.loop);
	pthread_join(waiter, NULL);
	log_info("pgsluice is down");
	finish();
	return 0;
}
