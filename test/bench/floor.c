/*
 * floor: the least a process between a client and Postgres can do.
 *
 * It accepts a connection, opens one of its own to the server, and carries
 * bytes both ways without looking at them:
 *
 *      client fd  -- recv -> block -> send --  server fd
 *                 <- send -- block <- recv --
 *
 * One thread, raw epoll, level-triggered; one recv and one send an event;
 * one block of 64 KiB that all connections share. In steady state there is
 * no epoll_ctl, no allocation and no copy in user space. What a pooler
 * spends above this is what it pays for understanding the protocol and for
 * lending servers out; the CPU per operation of this program is therefore
 * the unit that test/bench/run measures the others in.
 *
 * When a send takes only a part, the rest is kept aside (in memory that is
 * allocated then and freed as soon as it has gone), the side it came from
 * is not read meanwhile, and EPOLLOUT says when to go on.
 *
 * With -d the connection to the server begins so many milliseconds late.
 * In front of Postgres this stands for a database which is far away, or
 * slow to log in, and tells a pooler that logs its servers in side by side
 * from one that does so one after the other.
 *
 *      floor [-d DELAY_MS] LISTEN_PORT SERVER_PORT
 *
 * Both ports are on 127.0.0.1. It prints "ready" once it listens, and runs
 * until it is killed.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_SIZE	(64 * 1024)
#define EVENTS_A_TURN	256
#define BACKLOG		4096

/* One side of a relayed connection. Both directions are the same code. */
struct side {
	struct pair *pair;
	struct side *other;
	int fd;				/* -1: not opened yet */
	bool connecting;		/* server side only */
	char *unsent;			/* NULL: nothing waits to be sent */
	size_t unsent_at, unsent_end;
};

struct pair {
	struct side client, server;
	bool dead;			/* closed; freed at the turn's end */
	struct pair *next;		/* in the line of late or of dead */
	uint64_t due_ms;		/* when to connect to the server */
};

static int epoll_fd;
static struct sockaddr_in server_address;
static uint64_t delay_ms;
static char block[BLOCK_SIZE];

/* The delay is the same for all, so that a plain queue is in order. */
static struct pair *late_head, **late_tail = &late_head;
static struct pair *dead_head;

static uint64_t
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return ((uint64_t)now.tv_sec * 1000 +
	    (uint64_t)now.tv_nsec / 1000000);
}

static void
side_watch(struct side *side, int how, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = side };

	if (epoll_ctl(epoll_fd, how, side->fd, &event) != 0)
		err(1, "epoll_ctl");
}

/* Read a side only if what it said before has gone to the other one. */
static void
side_rewatch(struct side *side)
{
	uint32_t events = 0;

	if (side->other->unsent == NULL)
		events |= EPOLLIN;
	if (side->unsent != NULL)
		events |= EPOLLOUT;
	side_watch(side, EPOLL_CTL_MOD, events);
}

static void
side_close(struct side *side)
{
	if (side->fd >= 0)
		close(side->fd);
	free(side->unsent);
}

/* Events of this turn may still point at it, so it is freed after them. */
static void
pair_end(struct pair *pair)
{
	if (pair->dead)
		return;
	side_close(&pair->client);
	side_close(&pair->server);
	pair->dead = true;
	pair->next = dead_head;
	dead_head = pair;
}

static void
free_dead_pairs(void)
{
	struct pair *pair;

	while ((pair = dead_head) != NULL) {
		dead_head = pair->next;
		free(pair);
	}
}

static void
side_keep_unsent(struct side *to, const char *rest, size_t len)
{
	to->unsent = malloc(len);
	if (to->unsent == NULL)
		err(1, "malloc");
	memcpy(to->unsent, rest, len);
	to->unsent_at = 0;
	to->unsent_end = len;
	side_rewatch(to);
	side_rewatch(to->other);
}

static bool
is_retry(ssize_t result)
{
	return (result < 0 && (errno == EAGAIN || errno == EINTR));
}

/* Bytes are there: one recv, one send. */
static void
side_relay(struct side *from)
{
	struct side *to = from->other;
	ssize_t got, sent;

	got = recv(from->fd, block, sizeof(block), 0);
	if (is_retry(got))
		return;
	if (got <= 0) {
		pair_end(from->pair);
		return;
	}
	sent = send(to->fd, block, (size_t)got, MSG_NOSIGNAL);
	if (is_retry(sent))
		sent = 0;
	if (sent < 0)
		pair_end(from->pair);
	else if (sent < got)
		side_keep_unsent(to, block + sent, (size_t)(got - sent));
}

/* There is room again for what did not fit before. */
static void
side_send_rest(struct side *to)
{
	ssize_t sent;

	sent = send(to->fd, to->unsent + to->unsent_at,
	    to->unsent_end - to->unsent_at, MSG_NOSIGNAL);
	if (is_retry(sent))
		return;
	if (sent < 0) {
		pair_end(to->pair);
		return;
	}
	to->unsent_at += (size_t)sent;
	if (to->unsent_at < to->unsent_end)
		return;
	free(to->unsent);
	to->unsent = NULL;
	side_rewatch(to);
	side_rewatch(to->other);
}

/* The client is read from here on: before, there was nowhere to send to. */
static void
server_connected(struct side *server)
{
	int error = 0;
	socklen_t len = sizeof(error);

	getsockopt(server->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error != 0) {
		pair_end(server->pair);
		return;
	}
	server->connecting = false;
	side_watch(server, EPOLL_CTL_MOD, EPOLLIN);
	side_watch(server->other, EPOLL_CTL_ADD, EPOLLIN);
}

static void
side_serve(struct side *side, uint32_t events)
{
	if (side->pair->dead)
		return;
	if (side->connecting) {
		server_connected(side);
		return;
	}
	if ((events & EPOLLOUT) != 0)
		side_send_rest(side);
	else if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
		side_relay(side);
}

static void
set_nodelay(int fd)
{
	int on = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0)
		warn("TCP_NODELAY");
}

static void
pair_connect(struct pair *pair)
{
	struct side *server = &pair->server;
	int rc;

	server->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (server->fd < 0) {
		warn("socket");
		pair_end(pair);
		return;
	}
	set_nodelay(server->fd);
	rc = connect(server->fd, (struct sockaddr *)&server_address,
	    sizeof(server_address));
	if (rc != 0 && errno != EINPROGRESS) {
		warn("connect");
		pair_end(pair);
		return;
	}
	server->connecting = true;
	side_watch(server, EPOLL_CTL_ADD, EPOLLOUT);
}

static void
pair_connect_late(struct pair *pair)
{
	pair->due_ms = now_ms() + delay_ms;
	pair->next = NULL;
	*late_tail = pair;
	late_tail = &pair->next;
}

/* Connects those whose time has come; how long until the next, -1: none. */
static int
connect_due_pairs(void)
{
	struct pair *pair;
	uint64_t now;

	if (late_head == NULL)
		return (-1);
	now = now_ms();
	while ((pair = late_head) != NULL && pair->due_ms <= now) {
		late_head = pair->next;
		if (late_head == NULL)
			late_tail = &late_head;
		pair_connect(pair);
	}
	return (late_head == NULL ? -1 : (int)(late_head->due_ms - now));
}

static void
accept_client(int listen_fd)
{
	struct pair *pair;
	int fd;

	fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno != EAGAIN && errno != EINTR)
			warn("accept");
		return;
	}
	set_nodelay(fd);
	pair = calloc(1, sizeof(*pair));
	if (pair == NULL)
		err(1, "calloc");
	pair->client = (struct side){ .pair = pair, .fd = fd,
	    .other = &pair->server };
	pair->server = (struct side){ .pair = pair, .fd = -1,
	    .other = &pair->client };
	if (delay_ms > 0)
		pair_connect_late(pair);
	else
		pair_connect(pair);
}

static struct sockaddr_in
loopback(const char *port)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	char *end;
	unsigned long number = strtoul(port, &end, 10);

	if (*port == '\0' || *end != '\0' || number == 0 || number > 65535)
		errx(2, "not a port: %s", port);
	address.sin_port = htons((uint16_t)number);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return (address);
}

static int
listen_on(const char *port)
{
	struct sockaddr_in address = loopback(port);
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
	int fd, on = 1;

	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (fd < 0)
		err(1, "socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
		err(1, "bind %s", port);
	if (listen(fd, BACKLOG) != 0)
		err(1, "listen");
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		err(1, "epoll_ctl");
	return (fd);
}

static void
serve_forever(int listen_fd)
{
	struct epoll_event events[EVENTS_A_TURN];
	int count, i;

	for (;;) {
		count = epoll_wait(epoll_fd, events, EVENTS_A_TURN,
		    connect_due_pairs());
		for (i = 0; i < count; i++) {
			if (events[i].data.ptr == NULL)
				accept_client(listen_fd);
			else
				side_serve(events[i].data.ptr,
				    events[i].events);
		}
		free_dead_pairs();
	}
}

int
main(int argc, char **argv)
{
	int option, listen_fd;

	while ((option = getopt(argc, argv, "d:")) != -1) {
		if (option != 'd')
			return (2);
		delay_ms = strtoul(optarg, NULL, 10);
	}
	if (argc - optind != 2)
		errx(2, "usage: floor [-d DELAY_MS] "
		    "LISTEN_PORT SERVER_PORT");
	epoll_fd = epoll_create1(0);
	if (epoll_fd < 0)
		err(1, "epoll_create1");
	server_address = loopback(argv[optind + 1]);
	listen_fd = listen_on(argv[optind]);
	puts("ready");
	fflush(stdout);
	serve_forever(listen_fd);
}
