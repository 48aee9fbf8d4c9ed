/*
 * TLS as a translation. OpenSSL does no I/O here: the stream receives, hands
 * the bytes over, and sends what comes out.
 *
 *      socket --recv--> room->in --BIO--> SSL_read --> where stream.c wants
 *      stream_flush --> SSL_write --BIO--> room->out --> stream_write_raw
 *
 * room is one per loop and shared by its streams: it is full only while one
 * of the calls below runs. Compared with SSL_set_fd() this gives
 *
 * * one recv per readable event and one send per flush, however many records
 *   there are in them (OpenSSL's own BIO makes two calls a record when
 *   reading, or one and another to see EAGAIN, and one a record to write);
 * * nothing left inside the SSL object but the head of a record that has not
 *   come in full. So there are no bytes that no event will tell of, and
 *   SSL_write never has to be repeated with the same bytes;
 * * one queue, one way to pause and one way to end for all streams;
 * * a ClientHello that was read as if it were a message is fed back as is.
 *
 * The price is one copy of the ciphertext within the cache.
 *
 * A handshake is steps of one recv each. stream.c asks loop_may_start()
 * before each, so that a flood of newcomers cannot starve those who are in.
 *
 * An established link costs what the SSL object costs and a struct tls_link.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "net/inside.h"
#include "net/tls.h"
#include "net/tls_inside.h"

/* Plaintext of one record. */
#define RECORD_MAX 16384
/* A record held back inside the SSL object becomes readable with the bytes
 * that complete it, so there must be room for one more than was received. */
#define RECORD_SLACK (RECORD_MAX + 512)
/* Output of a full block of plaintext: four records and their heads. */
#define ROOM_OUT (LOOP_BLOCK + 4096)

struct tls_room {
	struct stream *owner;		/* of the bytes in `in` */
	size_t in_at, in_len;
	size_t out_len;
	char in[LOOP_BLOCK];
	char out[ROOM_OUT];
	char gather[RECORD_MAX];	/* small pieces become one record */
};

struct tls_link {
	SSL *ssl;
	struct tls_ctx *ctx;
	struct tls_resume *resume;	/* NULL = sessions are not kept */
	const char *why;		/* what failed; never freed */
	struct buf early;		/* put before the handshake was over */
	enum tls_start start;
	bool accepts;			/* we are the TLS server */
	bool open;			/* the handshake is done */
};

MEM_TYPE(room_type, tls_room);
MEM_TYPE(link_type, tls_link);

static struct tls_room *
room_of(const struct stream *s)
{
	return s->loop->tls_room;
}

static bool
room_prepare(struct loop *loop)
{
	if (loop->tls_room == NULL)
		loop->tls_room = mem_new(&room_type);
	return loop->tls_room != NULL;
}

void
tls_room_destroy(struct tls_room *room)
{
	mem_delete(&room_type, room);
}

/* SSL_get_error() is led astray by what others left in the thread's queue;
 * to look is cheaper than to clear. */
static void
forget_errors(void)
{
	if (ERR_peek_error() != 0)
		ERR_clear_error();
}

/* The BIO between an SSL object and the room */

static int
room_read(BIO *bio, char *to, int len)
{
	struct stream *s = BIO_get_data(bio);
	struct tls_room *room = room_of(s);
	size_t n = room->owner == s ? room->in_len : 0;

	BIO_clear_retry_flags(bio);
	if (n > (size_t)len)
		n = (size_t)len;
	if (n == 0) {
		BIO_set_retry_read(bio);
		return -1;
	}
	memcpy(to, room->in + room->in_at, n);
	room->in_at += n;
	room->in_len -= n;
	return (int)n;
}

static void
room_send(struct stream *s)
{
	struct tls_room *room = room_of(s);
	struct iovec piece = { room->out, room->out_len };

	room->out_len = 0;
	if (piece.iov_len != 0)
		stream_write_raw(s, &piece, 1, piece.iov_len);
}

/* Takes everything: what the kernel refuses is the stream's to queue. */
static int
room_write(BIO *bio, const char *from, int len)
{
	struct stream *s = BIO_get_data(bio);
	struct tls_room *room = room_of(s);
	size_t left = (size_t)len;

	BIO_clear_retry_flags(bio);
	while (left != 0) {
		size_t n = sizeof(room->out) - room->out_len;

		if (n > left)
			n = left;
		memcpy(room->out + room->out_len, from, n);
		room->out_len += n;
		from += n;
		left -= n;
		if (room->out_len == sizeof(room->out))
			room_send(s);
	}
	return len;
}

static long
room_control(BIO *bio, int command, long number, void *arg)
{
	(void)bio;
	(void)number;
	(void)arg;
	return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *room_method;

static void
room_make_method(void)
{
	BIO_METHOD *method = BIO_meth_new(
	    BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");

	if (method == NULL)
		return;
	BIO_meth_set_read(method, room_read);
	BIO_meth_set_write(method, room_write);
	BIO_meth_set_ctrl(method, room_control);
	room_method = method;
}

static BIO *
room_new_bio(struct stream *s)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	BIO *bio;

	pthread_once(&once, room_make_method);
	bio = room_method != NULL ? BIO_new(room_method) : NULL;
	if (bio == NULL)
		return NULL;
	BIO_set_data(bio, s);
	BIO_set_init(bio, 1);
	return bio;
}

/* Failure */

/* What OpenSSL's queue says, in words that need not be freed. */
static const char *
ssl_reason(const SSL *ssl)
{
	unsigned long error = ERR_peek_error();
	const char *text;

	if (ERR_GET_LIB(error) == ERR_LIB_SSL &&
	    ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED)
		return X509_verify_cert_error_string(
		    SSL_get_verify_result(ssl));
	text = ERR_reason_error_string(error);
	return text != NULL ? text : "TLS failed";
}

static void
link_note_failure(struct tls_link *link)
{
	if (link->why == NULL)
		link->why = ssl_reason(link->ssl);
	ERR_clear_error();
}

/* Starting */

static void
link_destroy(struct tls_link *link)
{
	if (link == NULL)
		return;
	SSL_free(link->ssl);
	tls_ctx_unref(link->ctx);
	buf_finish(&link->early);
	mem_delete(&link_type, link);
}

static struct tls_link *
link_create(struct stream *s, struct tls_ctx *ctx, enum tls_start start)
{
	struct tls_link *link;
	BIO *bio;

	if (!room_prepare(s->loop))
		return NULL;
	link = mem_new(&link_type);
	if (link == NULL)
		return NULL;
	link->ctx = tls_ctx_ref(ctx);
	link->start = start;
	link->ssl = SSL_new(ctx->ssl);
	bio = room_new_bio(s);
	if (link->ssl == NULL || bio == NULL) {
		BIO_free(bio);
		link_destroy(link);
		forget_errors();
		return NULL;
	}
	SSL_set_bio(link->ssl, bio, bio);
	return link;
}

static void
link_begin(struct stream *s, struct tls_link *link)
{
	s->tls = link;
	s->state = STREAM_HANDSHAKE;
}

bool
stream_start_tls_accept(struct stream *s, struct tls_ctx *ctx,
    enum tls_start start)
{
	struct tls_link *link;

	check(s->tls == NULL);
	stream_flush(s);		/* the 'S' goes out as it is */
	if (s->state != STREAM_OPEN)
		return true;		/* on_close is under way */
	if (start == TLS_NEGOTIATED && s->held.len != 0)
		return false;
	link = link_create(s, ctx, start);
	if (link == NULL)
		return false;
	link->accepts = true;
	SSL_set_accept_state(link->ssl);
	link_begin(s, link);
	if (s->held.len != 0)
		stream_make_ready(s, STREAM_DUE_HANDSHAKE);
	return true;
}

static bool
is_address(const char *host)
{
	struct in6_addr address;

	return inet_pton(AF_INET, host, &address) == 1 ||
	    inet_pton(AF_INET6, host, &address) == 1;
}

/* The name that is told the server, and the one its certificate must bear. */
static bool
link_set_host(struct tls_link *link, const char *host)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(link->ssl);
	bool address;

	if (host == NULL || host[0] == '\0')
		return link->ctx->mode != TLS_VERIFY_FULL;
	address = is_address(host);
	if (!address && SSL_set_tlsext_host_name(link->ssl, host) != 1)
		return false;
	if (link->ctx->mode != TLS_VERIFY_FULL)
		return true;
	if (address)
		return X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1;
	X509_VERIFY_PARAM_set_hostflags(param,
	    X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return X509_VERIFY_PARAM_set1_host(param, host, 0) == 1;
}

static void
link_try_resume(struct tls_link *link, const char *host)
{
	SSL_SESSION *session;

	link->resume = tls_resume_find(link->ctx, host);
	if (link->resume == NULL)
		return;
	session = tls_resume_get(link->ctx, link->resume);
	if (session == NULL)
		return;
	SSL_set_session(link->ssl, session);
	SSL_SESSION_free(session);
}

bool
stream_start_tls_connect(struct stream *s, struct tls_ctx *ctx,
    enum tls_start start, const char *host)
{
	struct tls_link *link;

	check(s->tls == NULL);
	stream_flush(s);
	if (s->state != STREAM_OPEN)
		return true;
	if (s->held.len != 0)
		return false;
	link = link_create(s, ctx, start);
	if (link == NULL)
		return false;
	SSL_set_connect_state(link->ssl);
	/* SSL_set_alpn_protos() returns 0 when it is content. */
	if (!link_set_host(link, host) || SSL_set_alpn_protos(link->ssl,
	    tls_alpn, sizeof(tls_alpn)) != 0) {
		link_destroy(link);
		forget_errors();
		return false;
	}
	link_try_resume(link, host);
	link_begin(s, link);
	stream_make_ready(s, STREAM_DUE_HANDSHAKE);
	return true;
}

bool
tls_link_take_rest(struct stream *s, const char *at, size_t len)
{
	struct tls_link *link = s->tls;

	if (len == 0)
		return true;
	if (!link->accepts || link->start != TLS_DIRECT) {
		link->why = "bytes behind the request for TLS";
		return false;
	}
	buf_add(&s->held, at, len);
	if (s->held.failed) {
		link->why = "out of memory";
		return false;
	}
	stream_make_ready(s, STREAM_DUE_HANDSHAKE);
	return true;
}

/* The handshake */

/* From the socket into the room. As recv(). */
static ssize_t
room_receive(struct stream *s, size_t want)
{
	struct tls_room *room = room_of(s);
	ssize_t n;

	if (want > sizeof(room->in))
		want = sizeof(room->in);
	do {
		n = recv(s->fd, room->in, want, MSG_DONTWAIT);
	} while (n == -1 && errno == EINTR);
	room->owner = s;
	room->in_at = 0;
	room->in_len = n > 0 ? (size_t)n : 0;
	return n;
}

/* The ClientHello that was read before it was known for one. */
static bool
room_take_held(struct stream *s)
{
	struct tls_room *room = room_of(s);

	if (s->held.len > sizeof(room->in))
		return false;
	memcpy(room->in, s->held.at, s->held.len);
	room->owner = s;
	room->in_at = 0;
	room->in_len = s->held.len;
	buf_finish(&s->held);
	return true;
}

static enum tls_step
handshake_input(struct stream *s)
{
	struct tls_link *link = s->tls;
	ssize_t n;

	if (s->held.len != 0) {
		if (room_take_held(s))
			return TLS_STEP_DONE;
		link->why = "a ClientHello of that size is none";
		return TLS_STEP_FAILED;
	}
	if (!link->accepts && SSL_in_before(link->ssl))
		return TLS_STEP_DONE;	/* ours is the first word */
	n = room_receive(s, LOOP_BLOCK - RECORD_SLACK);
	if (n > 0)
		return TLS_STEP_DONE;
	if (n == -1 && errno == EAGAIN)
		return TLS_STEP_MORE;
	link->why = n == 0 ? "closed during the TLS handshake" :
	    strerrordesc_np(errno);
	return TLS_STEP_FAILED;
}

static enum tls_step
handshake_done(struct tls_link *link)
{
	const unsigned char *chosen;
	unsigned len;

	link->open = true;
	if (link->start != TLS_DIRECT)
		return TLS_STEP_DONE;
	/* Without it, bytes that were meant for quite another protocol could
	 * be made to look like ours (the ALPACA attack). */
	SSL_get0_alpn_selected(link->ssl, &chosen, &len);
	if (len != 0)
		return TLS_STEP_DONE;
	link->why = "direct TLS without ALPN";
	return TLS_STEP_FAILED;
}

enum tls_step
tls_link_handshake(struct stream *s)
{
	struct tls_link *link = s->tls;
	enum tls_step step = handshake_input(s);
	int done;

	if (step != TLS_STEP_DONE)
		return step;
	forget_errors();
	done = SSL_do_handshake(link->ssl);
	if (done == 1)
		step = handshake_done(link);
	else if (SSL_get_error(link->ssl, done) == SSL_ERROR_WANT_READ)
		step = TLS_STEP_MORE;
	else
		step = TLS_STEP_FAILED;
	if (step == TLS_STEP_FAILED)
		link_note_failure(link);
	room_send(s);			/* an alert, too */
	return step;
}

int
tls_link_new_session(SSL *ssl, SSL_SESSION *session)
{
	const struct stream *s = BIO_get_data(SSL_get_rbio(ssl));
	const struct tls_link *link = s->tls;

	if (link->resume == NULL)
		return 0;
	tls_resume_set(link->ctx, link->resume, session);
	return 1;
}

/* Bytes in */

bool
tls_link_has_input(const struct stream *s)
{
	const struct tls_room *room = room_of(s);

	return (room->owner == s && room->in_len != 0) ||
	    SSL_has_pending(s->tls->ssl) == 1;
}

/*
 * SSL_read had nothing. False: and never will have. The peer's farewell, if
 * it comes behind bytes that are yet to be offered, waits until they are.
 */
static bool
link_may_go_on(struct stream *s, size_t total)
{
	struct tls_link *link = s->tls;

	switch (SSL_get_error(link->ssl, 0)) {
	case SSL_ERROR_WANT_READ:
		return true;
	case SSL_ERROR_ZERO_RETURN:
		if (total != 0)
			stream_make_ready(s,
			    STREAM_DUE_OFFER | STREAM_SAW_EOF);
		return total != 0;
	default:
		link_note_failure(link);
		room_send(s);		/* the alert */
		stream_end(s, STREAM_TLS_FAILED, 0);
		return true;
	}
}

ssize_t
tls_link_read(struct stream *s, char *at, size_t room_len, size_t want)
{
	struct tls_room *room = room_of(s);
	SSL *ssl = s->tls->ssl;
	size_t total = 0, n;
	bool may_go_on = true;
	ssize_t got;

	if (room->owner != s || room->in_len == 0) {
		check(room_len > RECORD_SLACK);
		if (want > room_len - RECORD_SLACK)
			want = room_len - RECORD_SLACK;
		if (want != 0 && (got = room_receive(s, want)) <= 0)
			return got;
	}
	forget_errors();
	/* Behind the last full record no call is made that would only have
	 * OpenSSL allocate its buffer again, for nothing to be put in. */
	while (room->in_len != 0 || SSL_has_pending(ssl) == 1) {
		check(total < room_len);
		if (SSL_read_ex(ssl, at + total, room_len - total, &n) != 1) {
			may_go_on = link_may_go_on(s, total);
			break;
		}
		total += n;
	}
	room->in_len = 0;
	room_send(s);
	if (total != 0)
		return (ssize_t)total;
	errno = EAGAIN;
	return may_go_on ? -1 : 0;
}

/* Bytes out */

static bool
link_encrypt(struct stream *s, const void *at, size_t len)
{
	size_t written;

	if (SSL_write_ex(s->tls->ssl, at, len, &written) == 1)
		return true;
	link_note_failure(s->tls);
	stream_end(s, STREAM_TLS_FAILED, 0);
	return false;
}

/* Small pieces are brought together, for a record has its price; what fills
 * records by itself is encrypted where it is. */
static bool
link_encrypt_pieces(struct stream *s, const struct iovec *pieces,
    unsigned count)
{
	char *gather = room_of(s)->gather;
	size_t filled = 0, n;

	for (unsigned i = 0; i < count; i++) {
		const char *at = pieces[i].iov_base;
		size_t len = pieces[i].iov_len;

		while (len != 0) {
			n = RECORD_MAX - filled;
			if (filled == 0 && (len >= n || i + 1 == count)) {
				if (!link_encrypt(s, at, len))
					return false;
				break;
			}
			if (n > len)
				n = len;
			memcpy(gather + filled, at, n);
			filled += n;
			at += n;
			len -= n;
			if (filled < RECORD_MAX)
				continue;
			if (!link_encrypt(s, gather, filled))
				return false;
			filled = 0;
		}
	}
	return filled == 0 || link_encrypt(s, gather, filled);
}

void
tls_link_write(struct stream *s, const struct iovec *pieces, unsigned count)
{
	forget_errors();
	if (link_encrypt_pieces(s, pieces, count))
		room_send(s);
	room_of(s)->out_len = 0;
}

void
tls_link_put_early(struct stream *s, const struct iovec *pieces,
    unsigned count)
{
	struct buf *early = &s->tls->early;

	for (unsigned i = 0; i < count; i++)
		buf_add(early, pieces[i].iov_base, pieces[i].iov_len);
	if (early->failed)
		stream_end(s, STREAM_NO_MEMORY, ENOMEM);
}

bool
tls_link_has_early(const struct stream *s)
{
	return s->tls->early.len != 0;
}

void
tls_link_send_early(struct stream *s)
{
	struct buf *early = &s->tls->early;
	struct iovec piece = { early->at, early->len };

	if (piece.iov_len != 0)
		tls_link_write(s, &piece, 1);
	buf_finish(early);
}

/* Life */

bool
tls_link_attach(struct stream *s)
{
	return room_prepare(s->loop);
}

/*
 * A polite end is announced. To OpenSSL it must look polite in any case: it
 * takes a session whose connection broke off for one not to be resumed.
 */
void
tls_link_close(struct stream *s)
{
	struct tls_link *link = s->tls;

	if (link->open && s->loop != NULL && s->state == STREAM_OPEN) {
		forget_errors();
		SSL_shutdown(link->ssl);
		room_send(s);
		forget_errors();
	}
	if (link->open && link->why == NULL)
		SSL_set_shutdown(link->ssl,
		    SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	if (s->loop != NULL && room_of(s)->owner == s)
		room_of(s)->owner = NULL;
	s->tls = NULL;
	link_destroy(link);
}

/* Questions */

const char *
stream_tls_version(const struct stream *s, char *text, size_t size)
{
	if (s->tls == NULL || !s->tls->open)
		snprintf(text, size, "%s", "");
	else
		snprintf(text, size, "%s/%s", SSL_get_version(s->tls->ssl),
		    SSL_get_cipher_name(s->tls->ssl));
	return text;
}

const char *
stream_tls_error(const struct stream *s)
{
	return s->tls != NULL && s->tls->why != NULL ? s->tls->why : "";
}

bool
stream_tls_is_verified(const struct stream *s)
{
	const struct tls_link *link = s->tls;

	return link != NULL && link->open &&
	    (SSL_get_verify_mode(link->ssl) & SSL_VERIFY_PEER) != 0 &&
	    SSL_get0_peer_certificate(link->ssl) != NULL &&
	    SSL_get_verify_result(link->ssl) == X509_V_OK;
}

bool
stream_tls_is_resumed(const struct stream *s)
{
	return s->tls != NULL && SSL_session_reused(s->tls->ssl) == 1;
}

size_t
stream_tls_end_point(const struct stream *s, unsigned char hash[64])
{
	const struct tls_ctx *ctx;

	if (s->tls == NULL || !s->tls->open)
		return 0;
	if (!s->tls->accepts)
		return tls_certificate_hash(
		    SSL_get0_peer_certificate(s->tls->ssl), hash);
	ctx = s->tls->ctx;
	memcpy(hash, ctx->end_point, ctx->end_point_len);
	return ctx->end_point_len;
}

bool
stream_tls_peer_name(const struct stream *s, char *name, size_t size)
{
	X509_NAME *subject;
	ASN1_STRING *text;
	unsigned char *utf8;
	int at, len;
	bool fits;

	if (!stream_tls_is_verified(s))
		return false;
	subject = X509_get_subject_name(
	    SSL_get0_peer_certificate(s->tls->ssl));
	at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	if (at < 0)
		return false;
	text = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
	len = ASN1_STRING_to_UTF8(&utf8, text);
	if (len < 0) {
		forget_errors();
		return false;
	}
	/* A NUL within the name would make it end earlier for us than it did
	 * for the authority that signed it. */
	fits = (size_t)len < size && memchr(utf8, 0, (size_t)len) == NULL;
	if (fits) {
		memcpy(name, utf8, (size_t)len);
		name[len] = '\0';
	}
	OPENSSL_free(utf8);
	return fits;
}
