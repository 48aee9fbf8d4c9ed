/*
 * What ill-behaved clients do: leave at any byte, stop reading, read or
 * write a few bytes at a time, cancel at any moment and with any key.
 *
 * What is going to happen in an operation is chosen when it begins, from the
 * client's own random numbers. A cancel goes over a connection of its own,
 * and is over when the other side closes that connection: a statement begun
 * afterwards must not be hit (this is what libpq's PQcancel relies on).
 */
#include "checker.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct cancel {
	int fd;			/* -1: this place is free */
	unsigned slot;
	unsigned generation;	/* of the client, when it was sent */
	bool own;		/* a right key: 57014 may follow */
	uint32_t pid, secret;
	bool sent;
};

static struct cancel cancels[MAX_CANCELS];
static unsigned cancels_used;	/* places that were ever used */
static unsigned cancels_live;

static const struct {
	unsigned cancel, doom;
} risks[OPS + 2] = {
#define X(name, weight, cancel, doom, text) { cancel, doom },
#include "checker_ops.def"
#undef X
	[OP_login] = { 0, 10 },
};

/* ---- cancel ----------------------------------------------------------- */

static struct cancel *
cancel_place(void)
{
	unsigned i;

	for (i = 0; i < cancels_used; i++)
		if (cancels[i].fd < 0)
			return &cancels[i];
	if (cancels_used == MAX_CANCELS)
		return NULL;
	return &cancels[cancels_used++];
}

static bool
cancel_start(struct client *c, uint32_t pid, uint32_t secret, bool own)
{
	struct cancel *cancel = cancel_place();
	struct epoll_event event;

	if (cancel == NULL)
		return false;
	*cancel = (struct cancel){
		.slot = c->slot, .generation = c->generation, .own = own,
		.pid = pid, .secret = secret
	};
	cancel->fd = connect_to(checker.host, checker.port, SOCK_NONBLOCK);
	if (cancel->fd < 0)
		return false;
	event.events = EPOLLOUT;
	event.data.u64 = (1u << 16) + (uint64_t)(cancel - cancels);
	epoll_ctl(checker.epoll, EPOLL_CTL_ADD, cancel->fd, &event);
	cancels_live++;
	if (own) {
		c->cancels++;
		c->cancel_allowed = true;
	}
	trace_note(c, '!', own ? '+' : '-', own ? "cancel sent" :
	    "cancel with a wrong key", own ? 11 : 23);
	return true;
}

static void
cancel_end(struct cancel *cancel)
{
	struct client *c = &clients[cancel->slot];

	close(cancel->fd);
	cancel->fd = -1;
	cancels_live--;
	if (cancel->own && cancel->generation == c->generation &&
	    c->cancels > 0)
		c->cancels--;
}

void
cancel_event(unsigned index)
{
	struct cancel *cancel = &cancels[index];
	struct bytes packet = {0};
	struct epoll_event event;
	char answer[64];
	ssize_t n;

	if (cancel->fd < 0)
		return;
	if (!cancel->sent) {
		put_u32(&packet, 16);
		put_u32(&packet, 80877102);
		put_u32(&packet, cancel->pid);
		put_u32(&packet, cancel->secret);
		n = send(cancel->fd, packet.at, packet.len, MSG_NOSIGNAL);
		bytes_free(&packet);
		if (n != 16) {
			cancel_end(cancel);
			return;
		}
		cancel->sent = true;
		event.events = EPOLLIN;
		event.data.u64 = (1u << 16) + (uint64_t)index;
		epoll_ctl(checker.epoll, EPOLL_CTL_MOD, cancel->fd, &event);
		return;
	}
	n = recv(cancel->fd, answer, sizeof(answer), 0);
	if (n > 0)
		violation(&clients[cancel->slot],
		    "%zd bytes in answer to a CancelRequest", n);
	else if (n < 0 && errno == EAGAIN)
		return;
	cancel_end(cancel);
}

bool
cancel_any(void)
{
	return cancels_live > 0;
}

static void
cancel_wrong(struct client *c)
{
	struct client *other = &clients[roll(c, checker.clients)];
	uint32_t pid = c->key_pid, secret = c->key_secret;

	switch (roll(c, 3)) {
	case 0:
		secret ^= 1u << roll(c, 32);
		break;
	case 1:
		if (other->key_pid == 0 || other->key_pid == c->key_pid)
			return;
		pid = other->key_pid;
		break;
	default:
		if (c->old_pid == 0)
			return;
		pid = c->old_pid;
		secret = c->old_secret;
	}
	if (cancel_start(c, pid, secret, false))
		COUNT(cancel_wrong);
}

/* ---- leaving ---------------------------------------------------------- */

enum leave
leave_choose(struct client *c)
{
	uint32_t at = roll(c, 100);

	return at < 35 ? LEAVE_RST : at < 70 ? LEAVE_FIN :
	    at < 85 ? LEAVE_TERMINATE : LEAVE_HALF;
}

static bool
between_messages(const struct client *c)
{
	const struct plan *p = &c->plan;
	size_t i;

	if (c->sent == p->out.len)
		return true;
	for (i = 0; i < p->mark_count && p->marks[i] <= c->sent; i++)
		if (p->marks[i] == c->sent)
			return true;
	return p->mark_count == 0 && c->sent == 0;
}

static void
count_leave(struct client *c, enum leave leave)
{
	const struct plan *p = &c->plan;

	if (leave == LEAVE_RST)
		COUNT(gone_rst);
	if (leave == LEAVE_HALF)
		COUNT(gone_half);
	if (c->state == CLIENT_CONNECTING || c->state == CLIENT_LOGIN)
		COUNT(gone_in_login);
	if (c->state == CLIENT_READY && leave != LEAVE_TERMINATE)
		COUNT(gone_idle);
	if (c->state != CLIENT_BUSY)
		return;
	if (!between_messages(c))
		COUNT(gone_sending);
	if (c->received == 0 && c->sent > 0)
		COUNT(gone_waiting);
	if (c->received > 0 && c->want < p->want_count)
		COUNT(gone_reading);
	if (c->in_block)
		COUNT(gone_in_tx);
	if (c->copying)
		COUNT(gone_in_copy);
	if (p->op == OP_pipeline && c->sent > 0 && c->want < p->want_count)
		COUNT(gone_in_pipeline);
}

/* Closes the sending side only, and goes on reading to the end. */
static void
leave_half(struct client *c)
{
	shutdown(c->fd, SHUT_WR);
	c->state = CLIENT_LEAVING;
	c->cancel_allowed = true;
	c->progress_us = checker.now_us;
	client_release_server(c);
	client_wants(c);
}

/* The client goes away in one of the four ways; it may come back later. */
void
client_drop(struct client *c, enum leave leave)
{
	static const struct linger reset = { 1, 0 };
	static const char terminate[] = { 'X', 0, 0, 0, 4 };

	if (c->fd < 0)
		return;
	trace_note(c, '!', 'x', "leaves", 6);
	count_leave(c, leave);
	if (leave == LEAVE_HALF && c->state == CLIENT_BUSY) {
		leave_half(c);
		return;
	}
	if (leave == LEAVE_RST)
		setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset,
		    sizeof(reset));
	if (leave == LEAVE_TERMINATE && between_messages(c))
		send(c->fd, terminate, sizeof(terminate), MSG_NOSIGNAL);
	client_close(c);
}

/* The other side went away: only --faults excuses it. */
void
client_lost(struct client *c)
{
	if (c->state != CLIENT_LEAVING) {
		if (!checker.faults) {
			violation(c, "connection closed by the other side");
			return;
		}
		COUNT(lost);
	}
	client_close(c);
}

/* ---- what will happen ------------------------------------------------- */

/* About how much will come back. */
static size_t
reply_size(const struct plan *p)
{
	size_t size = 0, i;

	for (i = 0; i < p->want_count; i++) {
		const struct want *w = &p->wants[i];

		size += (w->check == CHECK_IDENT ? 140u : 20u) * w->repeat;
		if (w->payload == PAYLOAD_REPEAT)
			size += w->size * 20;
		else if (w->payload == PAYLOAD_PARAM)
			size += w->size;
	}
	return size;
}

static void
choose_doom(struct client *c, size_t replies)
{
	struct mischief *m = &c->mischief;
	struct plan *p = &c->plan;
	uint32_t how = roll(c, 100);

	m->leave = leave_choose(c);
	if (how < 40) {
		m->doom = DOOM_SENT;
		m->doom_at = roll(c, (uint32_t)p->out.len + 1);
	} else if (how < 70 || p->step_count < 2) {
		m->doom = DOOM_RECEIVED;
		m->doom_at = 1 + roll(c, (uint32_t)replies);
	} else {
		m->doom = DOOM_STEP;
		m->doom_at = 1 + roll(c, (uint32_t)p->step_count - 1);
	}
}

static void
choose_pace(struct client *c, size_t replies)
{
	struct mischief *m = &c->mischief;
	bool large = replies > 50000;

	if (chance(c, large ? 100 : 5)) {
		m->freeze_at = 1 + roll(c, (uint32_t)replies / 2);
		m->freeze_us = 10000 + roll(c, 150000);
	}
	if (chance(c, large ? 100 : 20)) {
		m->read_max = 1 + roll(c, large ? 20000 : 100);
		COUNT(slow_reader);
	}
	if (chance(c, 20) && !(c->plan.op == OP_login &&
	    checker.whole_startup)) {
		m->write_max = 1;
		m->narrow_until = 1 + roll(c, 1500);
		COUNT(byte_writer);
	}
}

void
mischief_choose(struct client *c)
{
	struct mischief *m = &c->mischief;
	enum op op = c->plan.op;
	size_t replies = reply_size(&c->plan);
	uint32_t delay;

	memset(m, 0, sizeof(*m));
	if (!checker.misbehave || op == OP_recover)
		return;
	if (chance(c, risks[op].doom))
		choose_doom(c, replies);
	choose_pace(c, replies);
	if (chance(c, risks[op].cancel)) {
		delay = roll(c, chance(c, 500) ? 500 : 20000);
		m->cancel_us = checker.now_us + 1 + delay;
	}
	if (c->key_pid != 0 && chance(c, 8))
		cancel_wrong(c);
}

/* The moment of a planned cancel has come. */
void
mischief_tick(struct client *c)
{
	struct mischief *m = &c->mischief;

	if (c->state != CLIENT_BUSY || m->cancel_us == 0 ||
	    checker.now_us < m->cancel_us || c->key_pid == 0)
		return;
	m->cancel_us = 0;
	if (cancel_start(c, c->key_pid, c->key_secret, true))
		COUNT(cancel_active);
}

/* A cancel that comes too late: the reply is here already. */
void
mischief_late(struct client *c)
{
	if (!checker.misbehave || c->key_pid == 0 || !chance(c, 10))
		return;
	if (!cancel_start(c, c->key_pid, c->key_secret, true))
		return;
	COUNT(cancel_late);
	c->wait_for_cancel = chance(c, 500);
}
