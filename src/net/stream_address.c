/* Who is at the two ends of a stream, and the options of its socket. */
#include <arpa/inet.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "net/inside.h"
#include "net/stream.h"

typedef int (*name_call)(int, struct sockaddr *, socklen_t *);

static void
stream_ask_address(const struct stream *s, union stream_address *ret,
    name_call call)
{
	socklen_t len = sizeof(*ret);

	memset(ret, 0, sizeof(*ret));
	if (s->fd == -1 || call(s->fd, &ret->any, &len) == -1)
		memset(ret, 0, sizeof(*ret));
}

static int
ask_peer(int fd, struct sockaddr *address, socklen_t *len)
{
	return getpeername(fd, address, len);
}

static int
ask_local(int fd, struct sockaddr *address, socklen_t *len)
{
	return getsockname(fd, address, len);
}

void
stream_peer_address(const struct stream *s, union stream_address *ret)
{
	stream_ask_address(s, ret, ask_peer);
}

void
stream_local_address(const struct stream *s, union stream_address *ret)
{
	stream_ask_address(s, ret, ask_local);
}

bool
stream_is_unix(const struct stream *s)
{
	int domain;
	socklen_t len = sizeof(domain);

	return s->fd != -1 && getsockopt(s->fd, SOL_SOCKET, SO_DOMAIN,
	    &domain, &len) == 0 && domain == AF_UNIX;
}

static bool
stream_ask_peer(const struct stream *s, struct ucred *ret)
{
	socklen_t len = sizeof(*ret);

	return stream_is_unix(s) && getsockopt(s->fd, SOL_SOCKET, SO_PEERCRED,
	    ret, &len) == 0;
}

bool
stream_peer_uid(const struct stream *s, uint32_t *ret_uid)
{
	struct ucred peer;

	if (!stream_ask_peer(s, &peer) || peer.uid == (uid_t)-1)
		return false;
	*ret_uid = peer.uid;
	return true;
}

uint32_t
stream_peer_pid(const struct stream *s)
{
	struct ucred peer;

	return stream_ask_peer(s, &peer) && peer.pid > 0 ?
	    (uint32_t)peer.pid : 0;
}

bool
stream_peer_user(const struct stream *s, char *name, size_t size)
{
	struct passwd entry, *found = NULL;
	char room[4096];
	uint32_t uid;

	if (!stream_peer_uid(s, &uid) || getpwuid_r(uid, &entry, room,
	    sizeof(room), &found) != 0 || found == NULL)
		return false;
	return (size_t)snprintf(name, size, "%s", found->pw_name) < size;
}

/* What a socket refuses it does without: a unix socket knows no keepalive,
 * and a wrong number was refused when the settings were read. */
static void
socket_set(int fd, int level, int option, uint64_t value)
{
	int number = value < INT_MAX ? (int)value : INT_MAX;

	(void)setsockopt(fd, level, option, &number, sizeof(number));
}

/* What may have been inherited from a listening socket is set in any case,
 * but for the numbers that nobody has asked for. */
void
socket_tune(int fd, const struct stream_tuning *tuning)
{
	if (tuning->buffer_bytes != 0) {
		socket_set(fd, SOL_SOCKET, SO_SNDBUF, tuning->buffer_bytes);
		socket_set(fd, SOL_SOCKET, SO_RCVBUF, tuning->buffer_bytes);
	}
	socket_set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT,
	    (tuning->user_timeout_us + 999) / 1000);
	socket_set(fd, SOL_SOCKET, SO_KEEPALIVE, tuning->keepalive);
	if (!tuning->keepalive)
		return;
	if (tuning->keepidle_s > 0)
		socket_set(fd, IPPROTO_TCP, TCP_KEEPIDLE,
		    (uint64_t)tuning->keepidle_s);
	if (tuning->keepintvl_s > 0)
		socket_set(fd, IPPROTO_TCP, TCP_KEEPINTVL,
		    (uint64_t)tuning->keepintvl_s);
	if (tuning->keepcnt > 0)
		socket_set(fd, IPPROTO_TCP, TCP_KEEPCNT,
		    (uint64_t)tuning->keepcnt);
}

void
stream_tune(struct stream *s, const struct stream_tuning *tuning)
{
	check(s->fd != -1);
	socket_tune(s->fd, tuning);
}

bool
stream_tuning_is_same(const struct stream_tuning *a,
    const struct stream_tuning *b)
{
	return a->keepalive == b->keepalive &&
	    a->keepidle_s == b->keepidle_s &&
	    a->keepintvl_s == b->keepintvl_s && a->keepcnt == b->keepcnt &&
	    a->user_timeout_us == b->user_timeout_us &&
	    a->buffer_bytes == b->buffer_bytes;
}

void
address_print(const union stream_address *address, char *text, size_t size,
    unsigned *ret_port)
{
	const void *number = NULL;
	unsigned port = 0;

	switch (address->any.sa_family) {
	case AF_INET:
		number = &address->v4.sin_addr;
		port = ntohs(address->v4.sin_port);
		break;
	case AF_INET6:
		number = &address->v6.sin6_addr;
		port = ntohs(address->v6.sin6_port);
		break;
	}
	if (address->any.sa_family == AF_UNIX)
		snprintf(text, size, "unix");
	else if (number == NULL || inet_ntop(address->any.sa_family, number,
	    text, (socklen_t)size) == NULL)
		snprintf(text, size, "unknown");
	if (ret_port != NULL)
		*ret_port = port;
}
