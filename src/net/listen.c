/*
 * Listening sockets.
 *
 *   listener_create: addresses --getaddrinfo--> TCP sockets
 *                    unix_dir ----------------> the unix socket
 *
 *   readable --> accept4, up to ACCEPTS_A_TURN --> accepted(fd) --> next
 *                  |                                                 |
 *                  |              another loop: the listener moves <-+
 *                  +-- EMFILE, ENFILE, ENOMEM ... --> rest: all events off
 *                  |                                  for REST_US
 *                  +-- the owner has enough --------> or BREATH_US
 *
 * With no descriptor left an accept fails and the socket stays readable, so a
 * loop that just tried again would spin. The connections wait in the kernel's
 * backlog instead; 100 ms later somebody may have left.
 *
 * Two reasons keep the events off, the owner's pause and the rest, and both
 * must be over before they go on again.
 *
 * A listener is on one loop at a time, which serves what it accepts: so a new
 * connection wakes one thread and no second one. When that loop has enough,
 * the listener is mailed to another. `loop` says whose it is and changes
 * before the mail is posted; `is_here` says that the mail has been read. An
 * order to close may come from any thread and runs after the listener until
 * it reads it on the right one.
 */
#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/span.h"
#include "net/inside.h"
#include "net/listen.h"

#define LISTENER_MAGIC 0x6c697374u
#define SOCKETS 32
/* Few: those who are in are looked after in between. */
#define ACCEPTS_A_TURN 4
#define REST_US 100000
#define BREATH_US 5000

struct listening {
	struct event event;
	struct listener *listener;
	int fd;
	union stream_address address;
	char label[160];		/* for the log */
};

struct listener {
	uint32_t magic;
	_Atomic(struct loop *) loop;
	listener_accepted *accepted;
	void *arg;
	unsigned count;
	struct listening sockets[SOCKETS];
	bool is_here;			/* on `loop`, not on its way there */
	bool is_paused;			/* the owner's wish */
	bool is_resting;		/* out of descriptors, or: */
	bool is_breathing;		/* the owner has enough for now */
	bool is_accepting;		/* inside `accepted` */
	struct loop_timer rest;
	struct loop_mail passing, closing;
	struct log_limit complaints;
	/* The unix socket's file, to be removed if it is still ours. */
	char path[108];			/* "" = none */
	dev_t device;
	ino_t inode;
};

MEM_TYPE(listener_type, listener);

/* Where the text of an error goes while a listener is being made. */
struct why {
	char *text;
	size_t size;
};

static bool
fail(struct why *why, const char *what, const char *reason)
{
	snprintf(why->text, why->size, "cannot listen on %s: %s", what,
	    reason);
	return false;
}

/*
 * Accepting
 */

static void
events_switch(struct listener *listener)
{
	bool on = !listener->is_paused && !listener->is_resting;

	for (unsigned i = 0; i < listener->count; i++) {
		struct event *event = &listener->sockets[i].event;

		if (!on)
			event_del(event);
		else if (event_add(event, NULL) != 0)
			log_error("cannot accept on %s: out of memory",
			    listener->sockets[i].label);
	}
}

static void
on_rested(struct loop_timer *timer)
{
	struct listener *listener = container_of(timer, struct listener,
	    rest);

	check_magic(listener, LISTENER_MAGIC);
	listener->is_resting = listener->is_breathing = false;
	events_switch(listener);
}

static void
listener_rest(struct listener *listener, uint64_t rest_us)
{
	listener->is_resting = true;
	events_switch(listener);
	loop_timer_set(listener->loop, &listener->rest, clock_now_us() +
	    rest_us);
}

static void
listener_fail(struct listener *listener, const char *label, int error)
{
	uint32_t left_out;

	if (log_limit_pass(&listener->complaints, 1, &left_out))
		log_warning("cannot accept on %s: %s; trying again in %d ms",
		    label, strerror(error), REST_US / 1000);
	listener_rest(listener, REST_US);
}

void
listener_go_on(struct listener *listener)
{
	check_magic(listener, LISTENER_MAGIC);
	if (!listener->is_breathing)
		return;
	loop_timer_clear(&listener->rest);
	on_rested(&listener->rest);
}

/* Errors that are the one connection's own: accept(2) passes on what
 * happened to it while it was waiting. */
static bool
is_of_connection(int error)
{
	switch (error) {
	case EINTR:
	case ECONNABORTED:
	case EPROTO:
	case ENOPROTOOPT:
	case EPERM:
	case EHOSTDOWN:
	case EHOSTUNREACH:
	case ENETDOWN:
	case ENETUNREACH:
	case ENONET:
	case EOPNOTSUPP:
	case ETIMEDOUT:
		return true;
	default:
		return false;
	}
}

/* One connection. False: there is no other, for now. */
static bool
listening_accept(struct listening *listening, struct loop **ret_next)
{
	struct listener *listener = listening->listener;
	int fd = accept4(listening->fd, NULL, NULL,
	    SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return false;
	if (fd == -1 && is_of_connection(errno))
		return true;
	if (fd == -1) {
		listener_fail(listener, listening->label, errno);
		return false;
	}

	struct loop *next = listener->accepted(listener->arg, listener->loop,
	    fd, listening->address.any.sa_family == AF_UNIX);
	if (next != NULL)
		*ret_next = next;
	listener->is_breathing = next == NULL;
	if (next == NULL)
		listener_rest(listener, BREATH_US);
	return next != NULL;
}

static void
listener_arrive(struct loop *loop, struct loop_mail *mail)
{
	struct listener *listener = container_of(mail, struct listener,
	    passing);

	check_magic(listener, LISTENER_MAGIC);
	for (unsigned i = 0; i < listener->count; i++)
		event_base_set(loop_base(loop), &listener->sockets[i].event);
	listener->is_here = true;
	events_switch(listener);
}

/* From then on it is the other thread's. */
static void
listener_pass(struct listener *listener, struct loop *next)
{
	for (unsigned i = 0; i < listener->count; i++)
		event_del(&listener->sockets[i].event);
	listener->is_here = false;
	listener->passing.read = listener_arrive;
	listener->loop = next;
	loop_post(next, &listener->passing);
}

static void
on_readable(evutil_socket_t listening_fd, short what, void *arg)
{
	struct listening *listening = arg;
	struct listener *listener = listening->listener;
	struct loop *next = listener->loop;

	(void)listening_fd;
	(void)what;
	check_magic(listener, LISTENER_MAGIC);
	loop_awake(listener->loop);
	listener->is_accepting = true;
	for (int i = 0; i < ACCEPTS_A_TURN && !listener->is_paused; i++)
		if (!listening_accept(listening, &next))
			break;
	listener->is_accepting = false;
	/* One that rests has its timer here. */
	if (next != listener->loop && !listener->is_resting)
		listener_pass(listener, next);
}

/*
 * Opening
 */

static bool
is_listening_already(const struct listener *listener,
    const struct sockaddr *address, socklen_t len)
{
	for (unsigned i = 0; i < listener->count; i++)
		if (memcmp(&listener->sockets[i].address, address, len) == 0)
			return true;
	return false;
}

/* Puts a bound socket to work; the descriptor is the listener's then. */
static bool
listener_add(struct listener *listener, int fd,
    const struct sockaddr *address, socklen_t len, const char *label,
    int backlog, struct why *why)
{
	struct listening *listening = &listener->sockets[listener->count];

	if (listen(fd, backlog) != 0)
		return fail(why, label, strerror(errno));
	memcpy(&listening->address, address, len);
	snprintf(listening->label, sizeof(listening->label), "%s", label);
	if (event_assign(&listening->event, loop_base(listener->loop), fd,
	    EV_READ | EV_PERSIST, on_readable, listening) != 0)
		return fail(why, label, "out of memory");
	listening->listener = listener;
	listening->fd = fd;
	listener->count++;
	return true;
}

static void
socket_set(int fd, int level, int name)
{
	int one = 1;

	(void)setsockopt(fd, level, name, &one, sizeof(one));
}

/* Accepted sockets inherit all of these, so they are set once, here. */
static int
tcp_bind(const struct addrinfo *info, const struct listen_settings *settings)
{
	int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK |
	    SOCK_CLOEXEC, 0);

	if (fd == -1)
		return -1;
	socket_set(fd, SOL_SOCKET, SO_REUSEADDR);
	socket_set(fd, IPPROTO_TCP, TCP_NODELAY);
	socket_tune(fd, &settings->tuning);
	if (info->ai_family == AF_INET6)
		socket_set(fd, IPPROTO_IPV6, IPV6_V6ONLY);
	if (settings->reuse_port)
		socket_set(fd, SOL_SOCKET, SO_REUSEPORT);
	if (settings->defer_accept)
		socket_set(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT);
	if (bind(fd, info->ai_addr, info->ai_addrlen) != 0) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

static void
tcp_label(const union stream_address *address, char *label, size_t size)
{
	char host[64];
	unsigned port;

	address_print(address, host, sizeof(host), &port);
	snprintf(label, size, address->any.sa_family == AF_INET6 ?
	    "[%s]:%u" : "%s:%u", host, port);
}

/* One address of a name; 0, or what went wrong as an errno with why. */
static int
tcp_open(struct listener *listener, const struct addrinfo *info,
    const struct listen_settings *settings, struct why *why)
{
	union stream_address bound = { 0 };
	socklen_t len = sizeof(bound);
	char label[160];
	int fd, error;

	memcpy(&bound, info->ai_addr, info->ai_addrlen);
	tcp_label(&bound, label, sizeof(label));
	if (listener->count == SOCKETS) {
		fail(why, label, "too many addresses");
		return E2BIG;
	}
	fd = tcp_bind(info, settings);
	if (fd == -1) {
		error = errno;
		fail(why, label, strerror(error));
		return error;
	}
	/* Port 0 is any that is free; now it is known which. */
	if (getsockname(fd, &bound.any, &len) == 0)
		tcp_label(&bound, label, sizeof(label));
	if (!listener_add(listener, fd, &bound.any, info->ai_addrlen, label,
	    settings->backlog, why)) {
		close(fd);
		return EIO;
	}
	return 0;
}

/* A host without IPv6 still resolves localhost to ::1, and `*` to ::. That
 * is no reason not to start, if another address of the name works. */
static bool
is_absent_family(int error)
{
	return error == EAFNOSUPPORT || error == EADDRNOTAVAIL;
}

static bool
tcp_open_name(struct listener *listener, struct span name,
    const struct listen_settings *settings, struct why *why)
{
	struct addrinfo hints = {
		.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE,
	};
	struct addrinfo *list, *info;
	unsigned opened = 0;
	char host[256], port[16];
	int error;

	snprintf(host, sizeof(host), "%.*s", SPAN_ARG(name));
	snprintf(port, sizeof(port), "%u", settings->port);
	error = getaddrinfo(span_is(name, "*") ? NULL : host, port, &hints,
	    &list);
	if (error != 0)
		return fail(why, host, gai_strerror(error));
	for (info = list; info != NULL; info = info->ai_next) {
		if (is_listening_already(listener, info->ai_addr,
		    info->ai_addrlen))
			error = 0;
		else
			error = tcp_open(listener, info, settings, why);
		if (error != 0 && !is_absent_family(error))
			break;
		opened += error == 0;
	}
	freeaddrinfo(list);
	return opened > 0 && (error == 0 || is_absent_family(error));
}

static bool
tcp_open_all(struct listener *listener,
    const struct listen_settings *settings, struct why *why)
{
	struct span rest = span_of(settings->addresses), name;

	while (span_next(&rest, ',', &name))
		if (name.len > 0 &&
		    !tcp_open_name(listener, name, settings, why))
			return false;
	return true;
}

/*
 * The unix socket
 */

/*
 * A file of a process that was killed stays behind and keeps bind() from
 * working. It is removed only if it is a socket and nobody answers there.
 */
static bool
unix_remove_stale(const struct sockaddr_un *local, socklen_t len,
    struct why *why)
{
	const char *path = local->sun_path;
	struct stat status;
	int fd, error = 0;

	if (lstat(path, &status) != 0)
		return errno == ENOENT || fail(why, path, strerror(errno));
	if (!S_ISSOCK(status.st_mode))
		return fail(why, path, "a file of that name exists, and is "
		    "not a socket");
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return fail(why, path, strerror(errno));
	if (connect(fd, (const struct sockaddr *)local, len) != 0)
		error = errno;
	close(fd);
	if (error != ECONNREFUSED && error != ENOENT)
		return fail(why, path, "another process listens there");
	if (error == ECONNREFUSED && unlink(path) != 0 && errno != ENOENT)
		return fail(why, path, strerror(errno));
	return true;
}

static bool
unix_set_group(const char *path, const char *name, struct why *why)
{
	struct group entry, *found = NULL;
	char room[4096], text[96];
	char *end;
	unsigned long id = strtoul(name, &end, 10);

	if (name[0] == '\0')
		return true;
	if (*end != '\0') {
		if (getgrnam_r(name, &entry, room, sizeof(room), &found) != 0
		    || found == NULL) {
			snprintf(text, sizeof(text), "there is no group "
			    "\"%.60s\"", name);
			return fail(why, path, text);
		}
		id = found->gr_gid;
	}
	return chown(path, (uid_t)-1, (gid_t)id) == 0 ||
	    fail(why, path, strerror(errno));
}

/* The file is there, with its mode, before anybody can connect: connects are
 * refused until listen(). */
static bool
unix_prepare_file(struct listener *listener, const char *path,
    const struct listen_settings *settings, struct why *why)
{
	struct stat status;

	snprintf(listener->path, sizeof(listener->path), "%s", path);
	if (lstat(path, &status) == 0) {
		listener->device = status.st_dev;
		listener->inode = status.st_ino;
	}
	if (!unix_set_group(path, settings->unix_group, why))
		return false;
	return chmod(path, settings->unix_mode) == 0 ||
	    fail(why, path, strerror(errno));
}

static bool
unix_bind(struct listener *listener, int fd, struct sockaddr_un *local,
    socklen_t len, const char *label,
    const struct listen_settings *settings, struct why *why)
{
	const struct sockaddr *address = (const struct sockaddr *)local;
	bool is_file = local->sun_path[0] != '\0';

	if (is_file && !unix_remove_stale(local, len, why))
		return false;
	if (bind(fd, address, len) != 0)
		return fail(why, label, strerror(errno));
	if (is_file && !unix_prepare_file(listener, local->sun_path,
	    settings, why))
		return false;
	return listener_add(listener, fd, address, len, label,
	    settings->backlog, why);
}

static bool
unix_open(struct listener *listener, const struct listen_settings *settings,
    struct why *why)
{
	struct sockaddr_un local = { .sun_family = AF_UNIX };
	char label[sizeof(local.sun_path)];
	socklen_t len;
	int fd, path_len;

	if (settings->unix_dir[0] == '\0')
		return true;
	path_len = snprintf(local.sun_path, sizeof(local.sun_path),
	    "%s/.s.PGSQL.%u", settings->unix_dir, settings->port);
	if (path_len < 0 || (size_t)path_len >= sizeof(local.sun_path))
		return fail(why, settings->unix_dir, "the path is too long");
	memcpy(label, local.sun_path, sizeof(label));
	len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
	    (size_t)path_len + 1);
	if (local.sun_path[0] == '@') {
		/* As libpq has it: no NUL at the end of an abstract name. */
		local.sun_path[0] = '\0';
		len--;
	}
	if (listener->count == SOCKETS)
		return fail(why, label, "too many addresses");
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return fail(why, label, strerror(errno));
	if (!unix_bind(listener, fd, &local, len, label, settings, why)) {
		close(fd);
		return false;
	}
	return true;
}

/*
 * The listener
 */

struct listener *
listener_create(struct loop *loop, const struct listen_settings *settings,
    listener_accepted *accepted, void *arg, char *why, size_t why_size)
{
	struct listener *listener = mem_new(&listener_type);
	struct why where = { why, why_size };

	if (listener == NULL) {
		snprintf(why, why_size, "out of memory");
		return NULL;
	}
	listener->magic = LISTENER_MAGIC;
	listener->loop = loop;
	listener->is_here = true;
	listener->accepted = accepted;
	listener->arg = arg;
	loop_timer_init(&listener->rest, on_rested);
	if (!tcp_open_all(listener, settings, &where) ||
	    !unix_open(listener, settings, &where)) {
		listener_destroy(listener);
		return NULL;
	}
	if (listener->count == 0) {
		snprintf(why, why_size, "nothing to listen on");
		listener_destroy(listener);
		return NULL;
	}
	events_switch(listener);
	return listener;
}

void
listener_pause(struct listener *listener)
{
	check_magic(listener, LISTENER_MAGIC);
	listener->is_paused = true;
	events_switch(listener);
}

void
listener_resume(struct listener *listener)
{
	check_magic(listener, LISTENER_MAGIC);
	listener->is_paused = false;
	events_switch(listener);
}

/* Not if a later process has put its own there. */
static void
unix_remove_file(const struct listener *listener)
{
	struct stat status;

	if (listener->path[0] != '\0' &&
	    lstat(listener->path, &status) == 0 &&
	    status.st_dev == listener->device &&
	    status.st_ino == listener->inode)
		unlink(listener->path);
}

/* On its loop's thread, be it still on its way to it. */
static void
listener_shut(struct listener *listener)
{
	loop_timer_clear(&listener->rest);
	/* While the socket is open its inode number cannot be another's. */
	unix_remove_file(listener);
	listener->path[0] = '\0';
	for (unsigned i = 0; i < listener->count; i++) {
		if (listener->is_here)
			event_del(&listener->sockets[i].event);
		close(listener->sockets[i].fd);
	}
	listener->count = 0;
}

static void
listener_close_read(struct loop *loop, struct loop_mail *mail)
{
	struct listener *listener = container_of(mail, struct listener,
	    closing);

	check_magic(listener, LISTENER_MAGIC);
	if (listener->loop == loop)
		listener_shut(listener);
	else
		loop_post(listener->loop, mail);	/* it has moved on */
}

void
listener_close(struct listener *listener)
{
	check_magic(listener, LISTENER_MAGIC);
	check(listener->closing.read == NULL);
	listener->closing.read = listener_close_read;
	loop_post(listener->loop, &listener->closing);
}

void
listener_destroy(struct listener *listener)
{
	if (listener == NULL)
		return;
	check_magic(listener, LISTENER_MAGIC);
	check(listener->is_here && !listener->is_accepting);
	listener_shut(listener);
	mem_delete(&listener_type, listener);
}

void
listener_print(const struct listener *listener, char *text, size_t size)
{
	size_t at = 0;

	check_magic(listener, LISTENER_MAGIC);
	text[0] = '\0';
	for (unsigned i = 0; i < listener->count && at < size; i++) {
		int len = snprintf(text + at, size - at, "%s%s",
		    i > 0 ? "\n" : "", listener->sockets[i].label);

		if (len < 0)
			return;
		at += (size_t)len;
	}
}
