/*
 * The protocol of sd_notify(3), which is one datagram to a unix socket, and
 * documented there as stable: no library is needed for it.
 */
#include "net/notify.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define NOTIFY_MAX 512

/* False: none is named, or none that could be. */
static bool
notify_address(struct sockaddr_un *ret, socklen_t *ret_len)
{
	const char *name = getenv("NOTIFY_SOCKET");
	size_t len = name != NULL ? strlen(name) : 0;

	if (len < 2 || len >= sizeof(ret->sun_path) ||
	    (name[0] != '/' && name[0] != '@'))
		return false;
	memset(ret, 0, sizeof(*ret));
	ret->sun_family = AF_UNIX;
	memcpy(ret->sun_path, name, len);
	/* An abstract one: a NUL begins its name, and none ends it. */
	if (name[0] == '@')
		ret->sun_path[0] = '\0';
	*ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	return true;
}

void
notify_manager(const char *fmt, ...)
{
	struct sockaddr_un to;
	socklen_t to_len;
	char text[NOTIFY_MAX];
	va_list args;
	int fd;

	if (!notify_address(&to, &to_len))
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&to,
	    to_len);
	close(fd);
}
