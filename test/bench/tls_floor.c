/*
 * tls_floor: the least a server can do that holds TLS clients of Postgres.
 *
 * It answers SSLRequest with 'S', makes the TLS handshake with OpenSSL,
 * lets anybody in, and answers every query with one row, all from one
 * thread and canned bytes; there is no Postgres behind it. OpenSSL keeps
 * its buffers only while bytes are under way (SSL_MODE_RELEASE_BUFFERS),
 * and sessions are neither cached nor ticketed, as Postgres does it too.
 *
 * So what an idle client costs here is what OpenSSL itself costs, and what
 * a connect-query-leave costs is the handshake's arithmetic, the kernel's
 * share, and next to nothing else. test/bench/run takes both as floors.
 *
 * A client which does not ask for TLS is served without. That makes it an
 * answerer for ten thousand plain connects as well, when it is to be known
 * what such a storm does to a machine without any pooler in its way.
 *
 *      tls_floor LISTEN_PORT CERTIFICATE KEY
 *
 * Messages are taken to arrive whole, which libpq's short ones do over
 * loopback. A client for which this does not hold is dropped, with a line.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOCK_SIZE	(64 * 1024)
#define EVENTS_A_TURN	256
#define BACKLOG		4096
#define SSL_REQUEST_CODE 80877103u

enum phase { PHASE_START, PHASE_HANDSHAKE, PHASE_LOGIN, PHASE_QUERY };

struct client {
	int fd;
	enum phase phase;
	SSL *ssl;			/* NULL: plain */
};

/* What came of an attempt to read. */
enum input { INPUT_SOME, INPUT_NONE_YET, INPUT_END };

#define LITERAL(text)	text, sizeof(text) - 1

static int epoll_fd;
static SSL_CTX *tls;
static char block[BLOCK_SIZE];

static void
client_end(struct client *client)
{
	SSL_free(client->ssl);
	close(client->fd);
	free(client);
}

static enum input
client_read_tls(struct client *client, size_t *ret_len)
{
	int reason;

	if (SSL_read_ex(client->ssl, block, sizeof(block), ret_len) == 1)
		return (INPUT_SOME);
	reason = SSL_get_error(client->ssl, 0);
	ERR_clear_error();
	return (reason == SSL_ERROR_WANT_READ ? INPUT_NONE_YET : INPUT_END);
}

static enum input
client_read(struct client *client, size_t *ret_len)
{
	ssize_t got;

	if (client->ssl != NULL)
		return (client_read_tls(client, ret_len));
	got = recv(client->fd, block, sizeof(block), 0);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return (INPUT_NONE_YET);
	if (got <= 0)
		return (INPUT_END);
	*ret_len = (size_t)got;
	return (INPUT_SOME);
}

/* Answers are a few bytes to a client that waits for them: they fit. */
static bool
client_answer(struct client *client, const char *bytes, size_t len)
{
	size_t written;

	if (client->ssl != NULL)
		return (SSL_write_ex(client->ssl, bytes, len, &written) == 1);
	return (send(client->fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len);
}

/* AuthenticationOk, ReadyForQuery. */
static bool
client_let_in(struct client *client)
{
	client->phase = PHASE_QUERY;
	return (client_answer(client, LITERAL(
	    "R\0\0\0\10\0\0\0\0"
	    "Z\0\0\0\5I")));
}

/* RowDescription of an int4 named "one", its row, the ends. */
static bool
client_answer_query(struct client *client)
{
	return (client_answer(client, LITERAL(
	    "T\0\0\0\34\0\1one\0\0\0\0\0\0\0\0\0\0\27\0\4\377\377\377\377\0\0"
	    "D\0\0\0\13\0\1\0\0\0\0011"
	    "C\0\0\0\15SELECT 1\0"
	    "Z\0\0\0\5I")));
}

static uint32_t
block_uint32(size_t at)
{
	uint32_t word;

	memcpy(&word, block + at, sizeof(word));
	return (ntohl(word));
}

static bool
client_begin_tls(struct client *client)
{
	client->phase = PHASE_HANDSHAKE;
	if (send(client->fd, "S", 1, MSG_NOSIGNAL) != 1)
		return (false);
	client->ssl = SSL_new(tls);
	return (client->ssl != NULL &&
	    SSL_set_fd(client->ssl, client->fd) == 1);
}

/* SSLRequest or StartupMessage: a length, a code, the rest. */
static bool
client_take_startup(struct client *client, size_t len)
{
	if (len < 8 || block_uint32(0) != len) {
		warnx("startup packet of %zu bytes is not whole", len);
		return (false);
	}
	if (client->phase == PHASE_START &&
	    block_uint32(4) == SSL_REQUEST_CODE)
		return (client_begin_tls(client));
	return (client_let_in(client));
}

static bool
client_take_message(struct client *client, size_t len)
{
	if (block[0] == 'X')
		return (false);
	if (block[0] != 'Q' || len < 5 || block_uint32(1) != len - 1) {
		warnx("a message of %zu bytes is not a whole query", len);
		return (false);
	}
	return (client_answer_query(client));
}

/*
 * Everything that has arrived. OpenSSL may have read more than it gave out,
 * and epoll knows nothing of that, so TLS is read until it says no more.
 */
static bool
client_take_input(struct client *client)
{
	size_t len;
	bool alive = true;

	do {
		switch (client_read(client, &len)) {
		case INPUT_NONE_YET:
			return (true);
		case INPUT_END:
			return (false);
		case INPUT_SOME:
			break;
		}
		if (client->phase == PHASE_QUERY)
			alive = client_take_message(client, len);
		else
			alive = client_take_startup(client, len);
	} while (alive && client->ssl != NULL &&
	    client->phase != PHASE_HANDSHAKE);
	return (alive);
}

/* What comes right behind the handshake may be in OpenSSL's hands by then. */
static bool
client_handshake(struct client *client)
{
	int rc = SSL_accept(client->ssl), reason;

	if (rc == 1) {
		client->phase = PHASE_LOGIN;
		return (client_take_input(client));
	}
	reason = SSL_get_error(client->ssl, rc);
	ERR_clear_error();
	return (reason == SSL_ERROR_WANT_READ);
}

static void
client_serve(struct client *client)
{
	bool alive;

	if (client->phase == PHASE_HANDSHAKE)
		alive = client_handshake(client);
	else
		alive = client_take_input(client);
	if (!alive)
		client_end(client);
}

static void
accept_client(int listen_fd)
{
	struct client *client;
	struct epoll_event event = { .events = EPOLLIN };
	int fd, on = 1;

	fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno != EAGAIN && errno != EINTR)
			warn("accept");
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	client = calloc(1, sizeof(*client));
	if (client == NULL)
		err(1, "calloc");
	client->fd = fd;
	event.data.ptr = client;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		err(1, "epoll_ctl");
}

static int
listen_on(const char *port)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
	char *end;
	unsigned long number = strtoul(port, &end, 10);
	int fd, on = 1;

	if (*port == '\0' || *end != '\0' || number == 0 || number > 65535)
		errx(2, "not a port: %s", port);
	address.sin_port = htons((uint16_t)number);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
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

static SSL_CTX *
create_tls(const char *certificate, const char *key)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

	if (ctx == NULL ||
	    SSL_CTX_use_certificate_chain_file(ctx, certificate) != 1 ||
	    SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1) {
		ERR_print_errors_fp(stderr);
		exit(1);
	}
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	/* One read takes what is there, not a record's head and then its
	 * body: half of the system calls of a handshake. */
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
	SSL_CTX_set_num_tickets(ctx, 0);
	return (ctx);
}

static void
serve_forever(int listen_fd)
{
	struct epoll_event events[EVENTS_A_TURN];
	int count, i;

	for (;;) {
		count = epoll_wait(epoll_fd, events, EVENTS_A_TURN, -1);
		for (i = 0; i < count; i++) {
			if (events[i].data.ptr == NULL)
				accept_client(listen_fd);
			else
				client_serve(events[i].data.ptr);
		}
	}
}

int
main(int argc, char **argv)
{
	int listen_fd;

	if (argc != 4)
		errx(2, "usage: tls_floor LISTEN_PORT CERTIFICATE KEY");
	/* OpenSSL writes by write(2), also to clients that have left. */
	signal(SIGPIPE, SIG_IGN);
	epoll_fd = epoll_create1(0);
	if (epoll_fd < 0)
		err(1, "epoll_create1");
	tls = create_tls(argv[2], argv[3]);
	listen_fd = listen_on(argv[1]);
	puts("ready");
	fflush(stdout);
	serve_forever(listen_fd);
}
