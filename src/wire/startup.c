/*
 * The first packets of a connection. They have no type byte: a length word,
 * a code word, and what the code asks for.
 *
 *	first byte 0x16 --> a TLS ClientHello, without asking first
 *	length, code
 *	    1234.5679 SSLRequest, 1234.5680 GSSENCRequest	nothing more
 *	    1234.5678 CancelRequest			pid, key
 *	    3.x StartupMessage		name NUL value NUL ... NUL
 *
 * Anyone on the internet may send these. So a packet is judged as early as
 * its bytes allow, and everything that differs from what a client of ours
 * could mean is refused: an SSLRequest with something behind it, parameters
 * without their NULs, bytes behind the last one.
 */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "wire/body.h"
#include "wire/startup.h"

#define STARTUP_MIN	8
#define TLS_HANDSHAKE	0x16
#define KEY_MIN		4

#define CODE(major, minor)	((uint32_t)(major) << 16 | (minor))
#define CODE_CANCEL	CODE(1234, 5678)
#define CODE_SSL	CODE(1234, 5679)
#define CODE_GSS	CODE(1234, 5680)

/* NULL if a packet of this size can have this code, else what is wrong. */
static const char *
judge_code(uint32_t code, uint32_t size)
{
	switch (code) {
	case CODE_SSL:
	case CODE_GSS:
		return size == STARTUP_MIN ? NULL :
		    "encryption request with something behind it";
	case CODE_CANCEL:
		if (size < STARTUP_MIN + 4 + KEY_MIN)
			return "cancel request without a key";
		if (size > STARTUP_MIN + 4 + STARTUP_KEY_MAX)
			return "cancel key too long";
		return NULL;
	}
	return code >> 16 == 3 ? NULL : "unsupported protocol version";
}

static bool
params_are_good(struct span params)
{
	struct span name, value;

	while (startup_next_param(&params, &name, &value))
		continue;
	return params.len == 1 && params.at[0] == '\0';
}

static const char *
fill_startup(struct span packet, struct startup *ret)
{
	struct body body = body_of(packet);
	struct startup found = { 0 };
	uint32_t code;

	(void)body_u32(&body);
	code = body_u32(&body);
	switch (code) {
	case CODE_SSL:
		found.kind = STARTUP_SSL;
		break;
	case CODE_GSS:
		found.kind = STARTUP_GSS;
		break;
	case CODE_CANCEL:
		found.kind = STARTUP_CANCEL;
		found.pid = body_u32(&body);
		found.key = body_rest(&body);
		break;
	default:
		found.kind = STARTUP_LOGIN;
		found.major = (uint16_t)(code >> 16);
		found.minor = (uint16_t)code;
		found.params = body_rest(&body);
		if (!params_are_good(found.params))
			return "malformed startup parameters";
	}
	/* judge_code() knew the size to be right. */
	check(body_is_done(&body));
	*ret = found;
	return NULL;
}

enum frame_result
startup_peek(const char *at, size_t len, struct startup *ret,
    size_t *ret_size, const char **ret_why)
{
	static const char terminate[] = { 'X', 0, 0, 0, 4 };
	uint32_t size;
	const char *why;

	if (len == 0)
		return FRAME_MORE;
	if ((unsigned char)at[0] == TLS_HANDSHAKE) {
		*ret = (struct startup){ .kind = STARTUP_DIRECT_TLS };
		*ret_size = 0;
		return FRAME_OK;
	}
	if (memcmp(at, terminate, len < sizeof(terminate) ? len :
	    sizeof(terminate)) == 0) {
		if (len < sizeof(terminate))
			return FRAME_MORE;
		*ret = (struct startup){ .kind = STARTUP_TERMINATE };
		*ret_size = sizeof(terminate);
		return FRAME_OK;
	}
	/* The first byte already shows most of what is not for us: HTTP. */
	if (at[0] != 0) {
		*ret_why = "not a startup packet";
		return FRAME_BAD;
	}
	if (len < 4)
		return FRAME_MORE;
	size = frame_load_u32(at);
	if (size < STARTUP_MIN || size > STARTUP_MAX) {
		*ret_why = "bad length of startup packet";
		return FRAME_BAD;
	}
	if (len < STARTUP_MIN)
		return FRAME_MORE;
	why = judge_code(frame_load_u32(at + 4), size);
	if (why == NULL) {
		if (len < size)
			return FRAME_MORE;
		why = fill_startup((struct span){ at, size }, ret);
	}
	if (why != NULL) {
		*ret_why = why;
		return FRAME_BAD;
	}
	*ret_size = size;
	return FRAME_OK;
}

bool
startup_next_param(struct span *params, struct span *ret_name,
    struct span *ret_value)
{
	struct body body = body_of(*params);
	struct span name = body_text(&body), value;

	/* An empty name is the end, which stays where it is. */
	if (name.len == 0)
		return false;
	value = body_text(&body);
	if (body.bad)
		return false;
	*params = body_rest(&body);
	*ret_name = name;
	*ret_value = value;
	return true;
}

static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/*
 * Appends the next word of a command line to *out and cuts it off *rest.
 * A backslash takes the next byte as it is; a last one is dropped. False:
 * none is left.
 */
static bool
cut_word(struct span *rest, struct buf *out)
{
	const char *at = rest->at, *end = at + rest->len;
	bool escaped = false, found;

	while (at < end && is_space(*at))
		at++;
	found = at < end;
	for (; at < end && (escaped || !is_space(*at)); at++) {
		if (!escaped && *at == '\\') {
			escaped = true;
			continue;
		}
		escaped = false;
		buf_add(out, at, 1);
	}
	*rest = (struct span){ at, (size_t)(end - at) };
	return found;
}

/* Splits "name=value", which stands in memory of ours. A name may be written
 * with dashes or underscores. */
static bool
split_setting(struct span setting, struct span *ret_name,
    struct span *ret_value)
{
	char *equals = setting.len == 0 ? NULL :
	    memchr(setting.at, '=', setting.len);
	char *at;

	if (equals == NULL)
		return false;
	for (at = equals; at > setting.at; at--)
		if (at[-1] == '-')
			at[-1] = '_';
	*ret_name = (struct span){ setting.at,
	    (size_t)(equals - setting.at) };
	*ret_value = (struct span){ equals + 1,
	    setting.len - ret_name->len - 1 };
	return true;
}

/* What Postgres says of a word that is no setting, in *scratch. */
static enum frame_result
refuse_option(struct buf *scratch, const char *before, struct span word,
    const char *behind, struct span *ret_why)
{
	char text[256];

	snprintf(text, sizeof(text), "%s%.*s%s", before, SPAN_ARG(word),
	    behind);
	buf_clear(scratch);
	buf_add_text(scratch, text);
	*ret_why = buf_span(scratch);
	return FRAME_BAD;
}

#define INVALID "invalid command-line argument for server process: "

enum frame_result
startup_next_option(struct span *options, struct buf *scratch,
    struct span *ret_name, struct span *ret_value)
{
	struct span rest = *options, word;
	const char *flag = "-c ";

	if (rest.len == 0)
		return FRAME_MORE;
	buf_clear(scratch);
	if (!cut_word(&rest, scratch))
		return FRAME_MORE;
	word = buf_span(scratch);
	if (word.len < 2 || word.at[0] != '-')
		return refuse_option(scratch, INVALID, word, "", ret_value);
	if (word.len == 2 && word.at[1] == 'c') {
		/* "-c" alone: the setting is the next word, whatever that
		 * looks like. */
		buf_clear(scratch);
		if (!cut_word(&rest, scratch))
			return refuse_option(scratch, INVALID, SPAN("-c"), "",
			    ret_value);
		word = buf_span(scratch);
	} else if (word.at[1] == 'c' || word.at[1] == '-') {
		if (word.at[1] == '-')
			flag = "--";
		word.at += 2;
		word.len -= 2;
	} else {
		return refuse_option(scratch, INVALID, word, "", ret_value);
	}
	if (scratch->failed || !split_setting(word, ret_name, ret_value))
		return refuse_option(scratch, flag, word, " requires a value",
		    ret_value);
	*options = rest;
	return FRAME_OK;
}

void
startup_ssl_request(struct buf *out)
{
	msg_u32(out, STARTUP_MIN);
	msg_u32(out, CODE_SSL);
}

void
startup_cancel(struct buf *out, uint32_t pid, struct span key)
{
	if (key.len < KEY_MIN || key.len > STARTUP_KEY_MAX) {
		out->failed = true;
		return;
	}
	msg_u32(out, (uint32_t)(STARTUP_MIN + 4 + key.len));
	msg_u32(out, CODE_CANCEL);
	msg_u32(out, pid);
	buf_add_span(out, key);
}

size_t
startup_begin(struct buf *out, uint16_t major, uint16_t minor)
{
	size_t began = out->len;

	msg_u32(out, 0);		/* the length: startup_end() */
	msg_u32(out, CODE(major, minor));
	return began;
}

void
startup_param(struct buf *out, struct span name, struct span value)
{
	/* An empty name would be the end of the packet. */
	if (name.len == 0)
		out->failed = true;
	msg_text(out, name);
	msg_text(out, value);
}

void
startup_end(struct buf *out, size_t began)
{
	size_t size;

	msg_u8(out, 0);
	if (out->failed)
		return;
	size = out->len - began;
	if (size > STARTUP_MAX) {
		out->failed = true;
		return;
	}
	out->at[began] = (char)(size >> 24);
	out->at[began + 1] = (char)(size >> 16);
	out->at[began + 2] = (char)(size >> 8);
	out->at[began + 3] = (char)size;
}
