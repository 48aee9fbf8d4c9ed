/*
 * The cross-talk and ledger checker.
 *
 * It plays many clients at once, of many users, databases and settings, over
 * a pooler that has few servers, and holds every byte that comes back
 * against what that one client must get. At the end it reads from Postgres
 * itself what was really written. It fails if a client ever gets anything
 * meant for another, if a statement is lost or runs twice, if replies come in
 * the wrong order, number or form, or if an error comes that nothing calls
 * for. Clients behave badly while they are at it: they leave at any byte, in
 * the middle of messages, transactions and COPY; cancel early, late and with
 * wrong keys; stop reading; write one byte at a time.
 *
 *	checker_ops.c		what the clients do: a plan for each operation
 *	checker_say.c		the statements in them
 *	checker_plan.c		a plan: bytes to send, replies to expect
 *	checker_match.c		replies against the plan; model of a session
 *	checker_mischief.c	the bad behaviour
 *	checker_ledger.c	what was promised, and what is in the table
 *	checker_wire.c		bytes
 *	checker.c		options, the loop, connections, the report
 *
 * One thread, one epoll. Every client draws from random numbers of its own,
 * so a seed gives every client the same series of choices again (but not the
 * same timing). Nothing of pgsluice is used, nor libpq: the one would hide
 * mistakes that both make, the other could not misbehave.
 */
#include "checker.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct checker checker = {
	.host = "127.0.0.1", .port = 6432, .direct_port = 5432,
	.admin = "postgres", .clients = 40, .users = 3, .databases = 2,
	.ops = 10000, .seed = 1, .stall_s = 30, .misbehave = true,
	.search_path = true
};

struct client *clients;

static const struct {
	const char *name, *text;
	bool dangerous;
} counters[COUNTERS] = {
#define X(name, dangerous, text) { #name, text, dangerous },
#include "checker_counters.def"
#undef X
};

static const char *const op_names[OPS + 2] = {
#define X(name, weight, cancel, doom, text) #name,
#include "checker_ops.def"
#undef X
	"login", "recover"
};

const char *
op_name(enum op op)
{
	return op_names[op];
}

/* ---- chance ----------------------------------------------------------- */

uint32_t
roll(struct client *c, uint32_t sides)
{
	c->rng++;
	return sides == 0 ? 0 : (uint32_t)((mix(c->rng) >> 32) % sides);
}

bool
chance(struct client *c, unsigned permille)
{
	return roll(c, 1000) < permille;
}

static uint64_t
clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* ---- traces and violations -------------------------------------------- */

void
trace_note(struct client *c, char way, char type, const char *text, size_t len)
{
	struct trace *t = &c->trace[c->trace_at++ % TRACE_LINES];
	size_t i, keep = len < sizeof(t->text) - 1 ? len : sizeof(t->text) - 1;

	t->way = way;
	t->type = type;
	t->len = (uint32_t)len;
	for (i = 0; i < keep; i++)
		t->text[i] = text[i] >= ' ' && text[i] < 127 ? text[i] : '.';
	t->text[keep] = '\0';
}

static void
trace_print(const struct client *c)
{
	unsigned i = c->trace_at < TRACE_LINES ? 0 : c->trace_at - TRACE_LINES;

	for (; i < c->trace_at; i++) {
		const struct trace *t = &c->trace[i % TRACE_LINES];

		printf("    %c %c %6u %s\n", t->way, t->type, t->len, t->text);
	}
}

/* Says what is wrong, with how it came to it, and drops the client. */
void
violation(struct client *c, const char *format, ...)
{
	va_list args;

	checker.violations++;
	printf("VIOLATION client %u (u%u, d%u, generation %u) in %s, step "
	    "%zu of %zu, want %zu of %zu: ", c->slot, c->user, c->database,
	    c->generation, op_names[c->plan.op], c->step + 1,
	    c->plan.step_count, c->want + 1, c->plan.want_count);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n  > sent, < received, ! event; type, length, content\n");
	trace_print(c);
	fflush(stdout);
	client_close(c);
	if (checker.violations >= 10)
		checker.stopping = true;
}

/* ---- a client's life -------------------------------------------------- */

void
client_wants(struct client *c)
{
	struct epoll_event event = { .events = 0 };
	bool may_send = c->state == CLIENT_LOGIN || c->state == CLIENT_BUSY;

	if (c->fd < 0)
		return;
	if (c->frozen_until_us == 0 && c->state != CLIENT_CONNECTING)
		event.events |= EPOLLIN;
	if (c->state == CLIENT_CONNECTING)
		event.events |= EPOLLOUT;
	if (may_send && c->wake_us == 0 && c->step < c->plan.step_count &&
	    c->sent < c->plan.steps[c->step].out_end)
		event.events |= EPOLLOUT;
	if (event.events == c->interest)
		return;
	c->interest = event.events;
	event.data.u64 = c->slot;
	epoll_ctl(checker.epoll, EPOLL_CTL_MOD, c->fd, &event);
}

/* The connection is gone, for whatever reason; another one may follow. */
void
client_close(struct client *c)
{
	if (c->fd < 0)
		return;
	client_release_server(c);
	ledger_settle_rest(c, "client left, was dropped, or lost its server");
	if (c->plan.op < OPS && c->state != CLIENT_READY)
		checker.done[c->plan.op]++;
	close(c->fd);
	c->fd = -1;
	c->state = CLIENT_IDLE;
	c->wake_us = checker.now_us + roll(c, 2000);
	memset(c->statements, 0, sizeof(c->statements));
	if (c->key_pid != 0) {
		c->old_pid = c->key_pid;
		c->old_secret = c->key_secret;
		c->key_pid = 0;
	}
}

static void
client_connect(struct client *c)
{
	struct epoll_event event = { .events = EPOLLOUT };

	c->generation++;
	c->user = roll(c, checker.users);
	c->database = roll(c, checker.databases);
	c->in.len = 0;
	c->cancels = 0;
	c->wait_for_cancel = false;
	c->last_pid = 0;
	c->fd = connect_to(checker.host, checker.port, SOCK_NONBLOCK);
	if (c->fd < 0) {
		fprintf(stderr, "checker: cannot connect: %s\n",
		    strerror(errno));
		exit(2);
	}
	c->state = CLIENT_CONNECTING;
	c->progress_us = checker.now_us;
	c->wake_us = 0;
	c->interest = event.events;
	event.data.u64 = c->slot;
	epoll_ctl(checker.epoll, EPOLL_CTL_ADD, c->fd, &event);
	plan_reset(&c->plan, OP_login);
	c->want = 0;
}

static void client_advance(struct client *c);

static void client_advance(struct client *c);

static void
client_write(struct client *c)
{
	struct plan *p = &c->plan;
	struct mischief *m = &c->mischief;
	size_t limit = p->steps[c->step].out_end;

	if (m->doom == DOOM_SENT && limit > m->doom_at)
		limit = m->doom_at > c->sent ? m->doom_at : c->sent;
	while (c->sent < limit) {
		size_t len = limit - c->sent;
		bool narrow = c->sent < m->narrow_until;
		ssize_t n;

		if (narrow && len > m->write_max)
			len = m->write_max;
		n = send(c->fd, p->out.at + c->sent, len, MSG_NOSIGNAL);
		if (n <= 0)
			break;	/* if it is gone, recv will say why */
		c->sent += (size_t)n;
		c->progress_us = checker.now_us;
		if (narrow)
			break;
	}
	while (c->marked < p->mark_count && p->marks[c->marked] < c->sent) {
		const char *at = p->out.at + p->marks[c->marked++];

		trace_note(c, '>', at[0], at + 5, get_u32(at + 1) - 4);
	}
	if (m->doom == DOOM_SENT && c->sent >= m->doom_at) {
		m->doom = DOOM_NONE;
		client_drop(c, m->leave);
		return;
	}
	client_wants(c);
	/* All answers may have come before all was said: COPY data. */
	if (c->sent >= limit)
		client_advance(c);
}

static void
client_begin_step(struct client *c)
{
	struct plan *p = &c->plan;
	struct mischief *m = &c->mischief;
	unsigned delay = p->steps[c->step].delay_us;

	if (m->doom == DOOM_STEP && c->step >= m->doom_at) {
		m->doom = DOOM_NONE;
		client_drop(c, m->leave);
		return;
	}
	if (c->step + 1 == p->step_count)
		client_release_server(c);
	/*
	 * A cancel that is over strikes nothing that begins now; but within a
	 * batch it may be pending still: in COPY IN, Postgres notices it when
	 * the next data comes.
	 */
	if (c->step == 0 || p->wants[c->want - 1].type == 'Z')
		c->cancel_allowed = c->cancels > 0;
	c->progress_us = c->step_us = checker.now_us;
	if (delay > 0) {
		c->wake_us = checker.now_us + delay;
		if (c->in_block)
			COUNT(idle_in_tx);
		return;
	}
	client_write(c);
}

static void
client_begin_plan(struct client *c, enum state state)
{
	c->state = state;
	c->wake_us = 0;
	c->sent = c->step = c->want = c->marked = 0;
	c->received = 0;
	c->ready_seen = 0;
	if (c->plan.op != OP_recover) {
		c->struck = c->block_failed = c->segment_failed = false;
		c->in_block = c->savepoint = false;
		c->copying = c->rolled_back = false;
		c->tx_pid = 0;
	}
	c->skip_all = false;
	mischief_choose(c);
	client_begin_step(c);
}

static void
client_finish_plan(struct client *c)
{
	enum op op = c->plan.op;

	ledger_settle_rest(c,
	    "rolled back, failed, or given up after an error");
	if (op < OPS)
		checker.done[op]++;
	if (c->in_block) {
		/* Only a cancel leaves a failed transaction behind. */
		op_plan_rollback(c);
		client_begin_plan(c, CLIENT_BUSY);
		return;
	}
	c->state = CLIENT_READY;
	c->wake_us = chance(c, 50) ? checker.now_us + roll(c, 3000) : 1;
	if (op < OPS)
		mischief_late(c);
}

/* What the last message made possible: the next step, or the end. */
static void
client_advance(struct client *c)
{
	struct plan *p = &c->plan;
	size_t step = c->step;

	if (c->state != CLIENT_BUSY && c->state != CLIENT_LOGIN)
		return;
	/* The answer may be there before all of the question is sent: an
	 * error, or a cancel. What was begun must be sent to its end. */
	if (c->wake_us == 0 && c->sent < p->steps[step].out_end) {
		client_wants(c);
		return;
	}
	while (step < p->step_count && c->want >= p->steps[step].want_end)
		step++;
	/* At the end, or where the rest would build on what was struck; but
	 * never in the middle of a message. */
	if (step == p->step_count || (c->struck && step != c->step &&
	    c->want > 0 && p->wants[c->want - 1].type == 'Z')) {
		if (c->sent >= p->steps[c->step].out_end)
			client_finish_plan(c);
	} else if (step != c->step) {
		c->step = step;
		client_begin_step(c);
	}
}

static void
client_messages(struct client *c)
{
	unsigned generation = c->generation;
	size_t at = 0;

	while (c->fd >= 0 && c->in.len - at >= 5) {
		const char *message = c->in.at + at;
		uint32_t len = get_u32(message + 1);

		if (len < 4 || len > (64u << 20)) {
			violation(c, "message '%c' of length %u", *message,
			    len);
			break;
		}
		if (c->in.len - at < len + 1)
			break;
		trace_note(c, '<', *message, message + 5, len - 4);
		match_message(c, *message, message + 5, len - 4);
		at += len + 1;
		if (c->fd >= 0 && generation == c->generation)
			client_advance(c);
	}
	if (c->fd >= 0)
		bytes_drop_front(&c->in, at);
}

static void
client_freeze(struct client *c)
{
	struct mischief *m = &c->mischief;

	if (m->freeze_at == 0 || c->received < m->freeze_at)
		return;
	m->freeze_at = 0;
	c->frozen_until_us = checker.now_us + m->freeze_us;
	COUNT(frozen);
}

static void
client_read(struct client *c)
{
	static char space[65536];
	struct mischief *m = &c->mischief;
	size_t max = sizeof(space);
	ssize_t n;

	if (m->read_max != 0 && m->read_max < max)
		max = m->read_max;
	if (m->doom == DOOM_RECEIVED && m->doom_at - c->received < max)
		max = m->doom_at - c->received;
	n = recv(c->fd, space, max, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_lost(c);
		return;
	}
	c->received += (uint64_t)n;
	c->progress_us = checker.now_us;
	client_freeze(c);
	bytes_add(&c->in, space, (size_t)n);
	/* Where to stop is a matter of bytes, so it comes before the rest. */
	if (m->doom == DOOM_RECEIVED && c->received >= m->doom_at) {
		m->doom = DOOM_NONE;
		client_drop(c, m->leave);
	}
	client_messages(c);
	client_wants(c);
}

static void
client_event(struct client *c, uint32_t events)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (c->fd < 0)
		return;
	if (c->state == CLIENT_CONNECTING) {
		getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
		if (error != 0) {
			client_lost(c);
			return;
		}
		op_plan_login(c);
		client_begin_plan(c, CLIENT_LOGIN);
		return;
	}
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) &&
	    c->frozen_until_us == 0)
		client_read(c);
	if (c->fd >= 0 && (events & EPOLLOUT) && (c->interest & EPOLLOUT) &&
	    c->state != CLIENT_CONNECTING)
		client_write(c);
}

static void
client_goes_on(struct client *c)
{
	if (checker.stopping) {
		client_drop(c, LEAVE_TERMINATE);
		return;
	}
	if (chance(c, checker.misbehave ? 15 : 5)) {
		client_drop(c, checker.misbehave ? leave_choose(c) :
		    LEAVE_TERMINATE);
		return;
	}
	checker.ops_begun++;
	if (checker.ops_begun >= checker.ops)
		checker.stopping = true;
	op_plan(c);
	client_begin_plan(c, CLIENT_BUSY);
}

/* What only time brings about. */
static void
client_tick(struct client *c)
{
	bool due = c->wake_us != 0 && c->wake_us <= checker.now_us;

	if (c->frozen_until_us != 0 && c->frozen_until_us <= checker.now_us) {
		c->frozen_until_us = 0;
		c->progress_us = checker.now_us;
		client_wants(c);
	}
	mischief_tick(c);
	if (c->fd >= 0 && c->state != CLIENT_READY && !due &&
	    checker.now_us - c->progress_us > checker.stall_s * 1000000ull) {
		violation(c, "nothing happens any more");
		return;
	}
	if (c->wait_for_cancel && c->cancels == 0)
		c->wait_for_cancel = false;
	if (!due)
		return;
	if (c->state == CLIENT_IDLE) {
		c->frozen_until_us = 0;
		if (checker.stopping) {
			c->state = CLIENT_DONE;
			c->wake_us = 0;
			checker.alive--;
		} else {
			client_connect(c);
		}
	} else if (c->state == CLIENT_READY) {
		if (!c->wait_for_cancel && c->frozen_until_us == 0)
			client_goes_on(c);
	} else if (c->state == CLIENT_BUSY) {
		c->wake_us = 0;
		c->progress_us = checker.now_us;
		client_write(c);
	}
}

/* ---- the loop --------------------------------------------------------- */

static int
wait_ms(void)
{
	uint64_t first = UINT64_MAX, at;
	unsigned i;

	for (i = 0; i < checker.clients; i++) {
		struct client *c = &clients[i];

		at = c->wake_us != 0 && !c->wait_for_cancel ? c->wake_us :
		    UINT64_MAX;
		if (c->frozen_until_us != 0 && (c->frozen_until_us < at ||
		    c->state == CLIENT_READY))
			at = c->frozen_until_us;
		if (c->state == CLIENT_BUSY && c->mischief.cancel_us != 0 &&
		    c->mischief.cancel_us < at)
			at = c->mischief.cancel_us;
		if (at < first)
			first = at;
	}
	if (first <= checker.now_us)
		return 0;
	if (first == UINT64_MAX || first - checker.now_us > 100000)
		return 100;
	return (int)((first - checker.now_us + 999) / 1000);
}

static void
run(void)
{
	struct epoll_event events[128];
	unsigned u;
	int i, count;

	while (checker.alive > 0 || cancel_any()) {
		count = epoll_wait(checker.epoll, events, 128, wait_ms());
		checker.now_us = clock_us();
		for (i = 0; i < count; i++) {
			uint64_t which = events[i].data.u64;

			if (which >= 1u << 16)
				cancel_event((unsigned)(which - (1u << 16)));
			else
				client_event(&clients[which],
				    events[i].events);
		}
		for (u = 0; u < checker.clients; u++)
			client_tick(&clients[u]);
		if (checker.seconds != 0 && checker.now_us -
		    checker.started_us > checker.seconds * 1000000ull)
			checker.stopping = true;
	}
}

/* ---- the report ------------------------------------------------------- */

static void
report(void)
{
	double seconds = (double)(clock_us() - checker.started_us) / 1e6;
	uint64_t done = 0;
	unsigned i;

	printf("operations:");
	for (i = 0; i < OPS; i++) {
		done += checker.done[i];
		printf(" %s %llu%s", op_names[i],
		    (unsigned long long)checker.done[i],
		    i + 1 < OPS ? "," : "\n");
	}
	printf("interleavings:\n");
	for (i = 0; i < COUNTERS; i++) {
		printf("%12llu  %-18s %s\n",
		    (unsigned long long)checker.counts[i], counters[i].name,
		    counters[i].text);
		if (checker.misbehave && counters[i].dangerous &&
		    checker.counts[i] < checker.floor) {
			printf("TOO FEW: %s\n", counters[i].name);
			checker.violations++;
		}
	}
	printf("%llu operations, seed %llu, %u clients, %.1f seconds, "
	    "%u violations\n", (unsigned long long)done,
	    (unsigned long long)checker.seed, checker.clients, seconds,
	    checker.violations);
}

/* ---- options ---------------------------------------------------------- */

static void
usage(void)
{
	printf("usage: checker [options]\n"
	    "  --host H --port P    the pooler (a host beginning with / is\n"
	    "                       the folder of a unix socket)\n"
	    "  --direct-host H --direct-port P --admin USER\n"
	    "                       Postgres itself; no password\n"
	    "  --setup              create users and databases if missing\n"
	    "  --clients N --users N --databases N\n"
	    "  --ops N --seed N     how much, and which\n"
	    "  --seconds N          stop then, whatever was done\n"
	    "  --stall N            seconds without any progress that are\n"
	    "                       a violation\n"
	    "  --floor N            how often each dangerous interleaving\n"
	    "                       has to be reached\n"
	    "  --no-misbehave       no cancels, disconnects and freezes\n"
	    "  --faults             servers are being killed: lost\n"
	    "                       connections are no violation\n"
	    "  --no-search-path     for poolers that do not carry it\n"
	    "  --whole-startup      for those that want it in one piece\n"
	    "  --session-set        SET of parameters that are not reported\n"
	    "  --without a,b,...    leave operations out\n");
}

static void
leave_out(char *list)
{
	char *name;
	unsigned i;

	while ((name = strsep(&list, ",")) != NULL) {
		for (i = 0; i < OPS && strcmp(name, op_names[i]) != 0; i++)
			;
		if (i == OPS) {
			fprintf(stderr, "checker: no operation %s\n", name);
			exit(2);
		}
		checker.without[i] = true;
	}
}

static uint64_t
number(const char *text, uint64_t max)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || value > max) {
		fprintf(stderr, "checker: bad number %s\n", text);
		exit(2);
	}
	return value;
}

static const struct option options[] = {
	{ "host", 1, NULL, 'h' }, { "port", 1, NULL, 'p' },
	{ "direct-host", 1, NULL, 'H' }, { "direct-port", 1, NULL, 'P' },
	{ "admin", 1, NULL, 'a' }, { "setup", 0, NULL, 's' },
	{ "clients", 1, NULL, 'c' }, { "users", 1, NULL, 'u' },
	{ "databases", 1, NULL, 'd' }, { "ops", 1, NULL, 'n' },
	{ "seed", 1, NULL, 'S' }, { "seconds", 1, NULL, 't' },
	{ "stall", 1, NULL, 'T' }, { "floor", 1, NULL, 'f' },
	{ "no-misbehave", 0, NULL, 'm' }, { "faults", 0, NULL, 'F' },
	{ "no-search-path", 0, NULL, 'o' },
	{ "whole-startup", 0, NULL, 'W' }, { "session-set", 0, NULL, 'e' },
	{ "without", 1, NULL, 'w' }, { "help", 0, NULL, '?' },
	{ NULL, 0, NULL, 0 }
};

static void
option(int which, char *value)
{
	switch (which) {
	case 'h': checker.host = value; break;
	case 'p': checker.port = (int)number(value, 65535); break;
	case 'H': checker.direct_host = value; break;
	case 'P': checker.direct_port = (int)number(value, 65535); break;
	case 'a': checker.admin = value; break;
	case 's': checker.setup = true; break;
	case 'c': checker.clients = (unsigned)number(value, 60000); break;
	case 'u': checker.users = (unsigned)number(value, 1000); break;
	case 'd': checker.databases = (unsigned)number(value, 1000); break;
	case 'n': checker.ops = number(value, UINT64_MAX); break;
	case 'S': checker.seed = number(value, UINT64_MAX); break;
	case 't': checker.seconds = (unsigned)number(value, 1000000); break;
	case 'T': checker.stall_s = (unsigned)number(value, 100000); break;
	case 'f': checker.floor = (unsigned)number(value, 1000000); break;
	case 'm': checker.misbehave = false; break;
	case 'F': checker.faults = true; break;
	case 'o': checker.search_path = false; break;
	case 'W': checker.whole_startup = true; break;
	case 'e': checker.session_set = true; break;
	case 'w': leave_out(value); break;
	default: usage(); exit(which == '?' ? 0 : 2);
	}
}

static void
start_clients(void)
{
	unsigned i;

	clients = calloc(checker.clients, sizeof(*clients));
	if (clients == NULL)
		abort();
	for (i = 0; i < checker.clients; i++) {
		clients[i].slot = i;
		clients[i].fd = -1;
		clients[i].rng = mix(checker.seed * 65536 + i);
		clients[i].wake_us = 1;
		plan_reset(&clients[i].plan, OP_login);
	}
	checker.alive = checker.clients;
}

int
main(int argc, char **argv)
{
	unsigned i;
	int which;

	while ((which = getopt_long(argc, argv, "", options, NULL)) != -1)
		option(which, optarg);
	if (checker.direct_host == NULL)
		checker.direct_host = checker.host;
	setvbuf(stdout, NULL, _IOLBF, 0);
	ledger_prepare();
	checker.epoll = epoll_create1(EPOLL_CLOEXEC);
	checker.started_us = checker.now_us = clock_us();
	start_clients();
	run();
	ledger_read();
	report();
	for (i = 0; i < checker.clients; i++) {
		plan_free(&clients[i].plan);
		bytes_free(&clients[i].in);
	}
	free(clients);
	return checker.violations != 0;
}
