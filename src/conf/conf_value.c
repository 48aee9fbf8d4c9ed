/*
 * Settings as rows of a table.
 *
 * A struct conf_field says where in its struct a setting lives and of what
 * type it is. All that can be done with a setting - parse, print, copy,
 * compare, free - is done here by type, so that the options, the keys of a
 * [databases] entry and those of a [users] entry are nothing but tables.
 */
#include "conf/conf_value.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/words.h"
#include "conf/conf.h"

/* Types that are one word of a few. */
struct word {
	const char *text;
	int value;
};

static const struct word pool_modes[] = {
	{ "session", POOL_SESSION }, { "transaction", POOL_TRANSACTION },
	{ "statement", POOL_STATEMENT }, { NULL, 0 },
};
static const struct word auth_types[] = {
	{ "scram-sha-256", AUTH_SCRAM }, { "md5", AUTH_MD5 },
	{ "cert", AUTH_CERT }, { "plain", AUTH_PLAIN }, { "hba", AUTH_HBA },
	{ "trust", AUTH_TRUST }, { "any", AUTH_ANY }, { NULL, 0 },
};
static const struct word sslmodes[] = {
	{ "disable", CONF_SSL_DISABLE }, { "allow", CONF_SSL_ALLOW },
	{ "prefer", CONF_SSL_PREFER }, { "require", CONF_SSL_REQUIRE },
	{ "verify-ca", CONF_SSL_VERIFY_CA },
	{ "verify-full", CONF_SSL_VERIFY_FULL }, { NULL, 0 },
};
static const struct word log_formats[] = {
	{ "text", LOG_FORMAT_TEXT }, { "json", LOG_FORMAT_JSON }, { NULL, 0 },
};
static const struct word migration_locks[] = {
	{ "exclusive", MIGRATION_LOCK_EXCLUSIVE },
	{ "session", MIGRATION_LOCK_SESSION },
	{ "off", MIGRATION_LOCK_OFF }, { NULL, 0 },
};
static const struct word drain_timeouts[] = {
	{ "proceed", DRAIN_PROCEED }, { "abort", DRAIN_ABORT },
	{ "cancel", DRAIN_CANCEL }, { NULL, 0 },
};
static const struct word ddl_holds[] = {
	{ "migrators", DDL_HOLD_MIGRATORS }, { "all", DDL_HOLD_ALL },
	{ "none", DDL_HOLD_NONE }, { NULL, 0 },
};
static const struct word balances[] = {
	{ "round-robin", true }, { "disable", false }, { NULL, 0 },
};
static const struct word bindings[] = {
	{ "prefer", BINDING_PREFER }, { "require", BINDING_REQUIRE },
	{ "disable", BINDING_DISABLE }, { NULL, 0 },
};

/* How a type's value is kept. */
enum store { IN_BOOL, IN_INT, IN_U64, IN_TEXT };

static const struct type {
	enum store store;
	const struct word *words;	/* NULL = not a word */
	const char *expect;		/* NULL = anything */
} types[] = {
	[CONF_BOOL] = { IN_BOOL, NULL, "0 or 1" },
	[CONF_INT] = { IN_INT, NULL, "a whole number" },
	[CONF_OCTAL] = { IN_INT, NULL, "an octal number" },
	[CONF_DURATION] = { IN_U64, NULL,
	    "a time such as 30s, 5min, 500ms or a number of seconds," },
	[CONF_DURATION_MS] = { IN_U64, NULL,
	    "a time such as 30s or a number of milliseconds," },
	[CONF_SIZE] = { IN_U64, NULL, "a size such as 4096, 64kB or 1MB," },
	[CONF_TEXT] = { IN_TEXT, NULL, NULL },
	[CONF_TEXT_OR_NONE] = { IN_TEXT, NULL, NULL },
	[CONF_COMMAND] = { IN_TEXT, NULL, "a command with its arguments" },
	[CONF_POOL_MODE] = { IN_INT, pool_modes, NULL },
	[CONF_AUTH_TYPE] = { IN_INT, auth_types, NULL },
	[CONF_SSLMODE] = { IN_INT, sslmodes, NULL },
	[CONF_LOG_FORMAT] = { IN_INT, log_formats, NULL },
	[CONF_MIGRATION_LOCK] = { IN_INT, migration_locks, NULL },
	[CONF_ON_DRAIN_TIMEOUT] = { IN_INT, drain_timeouts, NULL },
	[CONF_DDL_HOLD] = { IN_INT, ddl_holds, NULL },
	[CONF_BALANCE] = { IN_BOOL, balances, NULL },
	[CONF_BINDING] = { IN_INT, bindings, NULL },
};

/* What was parsed, before it goes into its field. */
union value {
	bool boolean;
	int number;
	uint64_t amount;
};

static void *
field_at(const struct conf_field *field, void *object)
{
	return (char *)object + field->at;
}

static const void *
field_of(const struct conf_field *field, const void *object)
{
	return (const char *)object + field->at;
}

/*
 * Parsing
 */

static bool
parse_octal(struct span text, int *ret)
{
	int value = 0;

	if (text.len == 0 || text.len > 6)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		if (text.at[i] < '0' || text.at[i] > '7')
			return false;
		value = value * 8 + (text.at[i] - '0');
	}
	*ret = value;
	return true;
}

static bool
parse_int(struct span text, int *ret)
{
	int64_t wide;

	if (!span_parse_i64(text, &wide) || wide < INT32_MIN ||
	    wide > INT32_MAX)
		return false;
	*ret = (int)wide;
	return true;
}

/* As any duration, but a bare number is in milliseconds. */
static bool
parse_duration_ms(struct span text, uint64_t *ret)
{
	char with_unit[40];
	int len;

	if (text.len == 0 || text.at[text.len - 1] < '0' ||
	    text.at[text.len - 1] > '9')
		return span_parse_duration_us(text, ret);
	len = snprintf(with_unit, sizeof(with_unit), "%.*sms",
	    SPAN_ARG(text));
	return len > 0 && (size_t)len < sizeof(with_unit) &&
	    span_parse_duration_us(span_of(with_unit), ret);
}

static bool
parse_word(const struct word *words, struct span text, int *ret)
{
	for (; words->text != NULL; words++)
		if (span_is_case(text, words->text)) {
			*ret = words->value;
			return true;
		}
	return false;
}

/* By type alone, whatever the range. */
static bool
parse_value(enum conf_type type, struct span text, union value *ret)
{
	int word;

	switch (type) {
	case CONF_BOOL:
		return span_parse_bool(text, &ret->boolean);
	case CONF_INT:
		return parse_int(text, &ret->number);
	case CONF_OCTAL:
		return parse_octal(text, &ret->number);
	case CONF_DURATION:
		return span_parse_duration_us(text, &ret->amount);
	case CONF_DURATION_MS:
		return parse_duration_ms(text, &ret->amount);
	case CONF_SIZE:
		return span_parse_size(text, &ret->amount);
	case CONF_TEXT:
	case CONF_TEXT_OR_NONE:
	case CONF_COMMAND:
		break;
	case CONF_POOL_MODE:
	case CONF_AUTH_TYPE:
	case CONF_SSLMODE:
	case CONF_LOG_FORMAT:
	case CONF_MIGRATION_LOCK:
	case CONF_ON_DRAIN_TIMEOUT:
	case CONF_DDL_HOLD:
	case CONF_BALANCE:
	case CONF_BINDING:
		if (!parse_word(types[type].words, text, &word))
			return false;
		if (types[type].store == IN_BOOL)
			ret->boolean = word != 0;
		else
			ret->number = word;
		return true;
	}
	return false;
}

static bool
is_in_range(const struct conf_field *field, const union value *value)
{
	union value min, max;

	if (types[field->type].words != NULL || field->type == CONF_BOOL)
		return true;
	check(parse_value(field->type, span_of(field->min), &min));
	check(parse_value(field->type, span_of(field->max), &max));
	if (types[field->type].store == IN_INT)
		return value->number >= min.number &&
		    value->number <= max.number;
	return value->amount >= min.amount && value->amount <= max.amount;
}

static bool
is_command(struct span text, struct buf *why)
{
	char **words = words_split(text, why);

	mem_free(words);
	return words != NULL;
}

static bool
set_text(const struct conf_field *field, void *object, struct span text,
    struct buf *why)
{
	char **at = field_at(field, object), *copy = NULL;

	if (memchr(text.at != NULL ? text.at : "", '\0', text.len) != NULL) {
		buf_add_text(why, "a NUL byte cannot be in it");
		return false;
	}
	if (field->type == CONF_COMMAND && text.len > 0 &&
	    !is_command(text, why))
		return false;
	if (text.len > 0 || field->type != CONF_TEXT_OR_NONE) {
		copy = mem_strndup(text.len > 0 ? text.at : "", text.len);
		if (copy == NULL) {
			buf_add_text(why, "out of memory");
			return false;
		}
	}
	conf_field_finish(field, object);
	*at = copy;
	return true;
}

/* A value of PgBouncer's is not just any wrong one. */
static bool
is_not_yet(enum conf_type type, struct span text)
{
	return type == CONF_AUTH_TYPE && (span_is_case(text, "ldap") ||
	    span_is_case(text, "pam"));
}

bool
conf_field_set(const struct conf_field *field, void *object, struct span text,
    struct buf *why)
{
	void *at = field_at(field, object);
	union value value;

	if (types[field->type].store == IN_TEXT)
		return set_text(field, object, text, why);
	if (is_not_yet(field->type, text)) {
		buf_printf(why, "\"%.*s\" is a PgBouncer value that "
		    "pgsluice does not have yet", SPAN_ARG(text));
		return false;
	}
	if (!parse_value(field->type, text, &value) ||
	    !is_in_range(field, &value)) {
		buf_add_text(why, "expected ");
		conf_field_expect(field, why);
		if (text.len > 60)
			buf_printf(why, ", not \"%.60s...\"", text.at);
		else
			buf_printf(why, ", not \"%.*s\"", SPAN_ARG(text));
		return false;
	}
	switch (types[field->type].store) {
	case IN_BOOL:
		*(bool *)at = value.boolean;
		break;
	case IN_INT:
		*(int *)at = value.number;
		break;
	case IN_U64:
		*(uint64_t *)at = value.amount;
		break;
	case IN_TEXT:
		break;
	}
	return true;
}

void
conf_field_expect(const struct conf_field *field, struct buf *out)
{
	const struct type *type = &types[field->type];
	const struct word *word;

	if (type->words != NULL) {
		for (word = type->words; word->text != NULL; word++)
			buf_printf(out, "%s%s", word == type->words ? "" :
			    word[1].text != NULL ? ", " : " or ", word->text);
		return;
	}
	buf_add_text(out, type->expect != NULL ? type->expect : "a text");
	if (field->type != CONF_BOOL && type->store != IN_TEXT)
		buf_printf(out, " from %s to %s", field->min, field->max);
}

/*
 * Printing
 */

/* 1500000 us in units of a second: "1.5". As PgBouncer shows it. */
static void
print_duration(struct buf *out, uint64_t us, uint64_t unit_us, int digits)
{
	buf_printf(out, "%" PRIu64, us / unit_us);
	if (us % unit_us == 0)
		return;
	buf_printf(out, ".%0*" PRIu64, digits, us % unit_us);
	while (out->len > 0 && out->at[out->len - 1] == '0')
		out->len--;
}

static void
print_word(struct buf *out, const struct word *words, int value)
{
	while (words->text != NULL && words->value != value)
		words++;
	check(words->text != NULL);
	buf_add_text(out, words->text);
}

void
conf_field_print(const struct conf_field *field, const void *object,
    struct buf *out)
{
	const void *at = field_of(field, object);
	const struct type *type = &types[field->type];
	const char *text;

	switch (field->type) {
	case CONF_BOOL:
		buf_add_text(out, *(const bool *)at ? "1" : "0");
		break;
	case CONF_INT:
		buf_printf(out, "%d", *(const int *)at);
		break;
	case CONF_OCTAL:
		buf_printf(out, "%04o", (unsigned)*(const int *)at);
		break;
	case CONF_DURATION:
		print_duration(out, *(const uint64_t *)at, 1000000, 6);
		break;
	case CONF_DURATION_MS:
		print_duration(out, *(const uint64_t *)at, 1000, 3);
		break;
	case CONF_SIZE:
		buf_printf(out, "%" PRIu64, *(const uint64_t *)at);
		break;
	case CONF_TEXT:
	case CONF_TEXT_OR_NONE:
	case CONF_COMMAND:
		text = *(char *const *)at;
		buf_add_text(out, text != NULL ? text : "");
		break;
	case CONF_POOL_MODE:
	case CONF_AUTH_TYPE:
	case CONF_SSLMODE:
	case CONF_LOG_FORMAT:
	case CONF_MIGRATION_LOCK:
	case CONF_ON_DRAIN_TIMEOUT:
	case CONF_DDL_HOLD:
	case CONF_BINDING:
		print_word(out, type->words, *(const int *)at);
		break;
	case CONF_BALANCE:
		print_word(out, type->words, *(const bool *)at);
		break;
	}
}

/*
 * Copying and comparing
 */

bool
conf_field_copy(const struct conf_field *field, void *to, const void *from)
{
	const void *source = field_of(field, from);
	void *target = field_at(field, to);
	const char *text;

	switch (types[field->type].store) {
	case IN_BOOL:
		*(bool *)target = *(const bool *)source;
		break;
	case IN_INT:
		*(int *)target = *(const int *)source;
		break;
	case IN_U64:
		*(uint64_t *)target = *(const uint64_t *)source;
		break;
	case IN_TEXT:
		text = *(char *const *)source;
		*(char **)target = text != NULL ? mem_strdup(text) : NULL;
		return text == NULL || *(char **)target != NULL;
	}
	return true;
}

bool
conf_field_equal(const struct conf_field *field, const void *a, const void *b)
{
	const void *one = field_of(field, a), *other = field_of(field, b);
	const char *text, *text_other;

	switch (types[field->type].store) {
	case IN_BOOL:
		return *(const bool *)one == *(const bool *)other;
	case IN_INT:
		return *(const int *)one == *(const int *)other;
	case IN_U64:
		return *(const uint64_t *)one == *(const uint64_t *)other;
	case IN_TEXT:
		break;
	}
	text = *(char *const *)one;
	text_other = *(char *const *)other;
	if (text == NULL || text_other == NULL)
		return text == text_other;
	return strcmp(text, text_other) == 0;
}

/* Any text may be a secret: wiped, whatever it is. */
void
conf_field_finish(const struct conf_field *field, void *object)
{
	char **at = field_at(field, object);

	if (types[field->type].store != IN_TEXT || *at == NULL)
		return;
	mem_wipe(*at, strlen(*at));
	mem_free(*at);
	*at = NULL;
}

/*
 * The options
 */

#define AT_BOOL(name)		offsetof(struct conf_options, name)
#define AT_INT(name)		offsetof(struct conf_options, name)
#define AT_OCTAL(name)		offsetof(struct conf_options, name)
#define AT_DURATION(name)	offsetof(struct conf_options, name##_us)
#define AT_DURATION_MS(name)	offsetof(struct conf_options, name##_us)
#define AT_SIZE(name)		offsetof(struct conf_options, name##_bytes)
#define AT_TEXT(name)		offsetof(struct conf_options, name)
#define AT_COMMAND(name)	offsetof(struct conf_options, name)
#define AT_POOL_MODE(name)	offsetof(struct conf_options, name)
#define AT_AUTH_TYPE(name)	offsetof(struct conf_options, name)
#define AT_SSLMODE(name)	offsetof(struct conf_options, name)
#define AT_LOG_FORMAT(name)	offsetof(struct conf_options, name)
#define AT_MIGRATION_LOCK(name)	offsetof(struct conf_options, name)
#define AT_ON_DRAIN_TIMEOUT(name) offsetof(struct conf_options, name)
#define AT_DDL_HOLD(name)	offsetof(struct conf_options, name)

static const struct conf_option options[] = {
#define X(type, name, def, min, max, when, help) \
	{ { #name, CONF_##type, AT_##type(name), min, max }, def, \
	    CONF_##when, help },
#include "conf/options.def"
#undef X
};

#define OPTION_COUNT (sizeof(options) / sizeof(options[0]))

unsigned
conf_option_count(void)
{
	return OPTION_COUNT;
}

const struct conf_option *
conf_option_at(unsigned index)
{
	check(index < OPTION_COUNT);
	return &options[index];
}

int
conf_option_find(struct span name)
{
	/* PgBouncer's other name for it. */
	if (span_is(name, "service_name"))
		name = SPAN("job_name");
	for (unsigned i = 0; i < OPTION_COUNT; i++)
		if (span_is(name, options[i].field.name))
			return (int)i;
	return -1;
}

const char *
conf_option_name_at(const void *arg, unsigned index)
{
	(void)arg;
	return index < OPTION_COUNT ? options[index].field.name : NULL;
}

enum conf_missing
conf_missing_find(struct span name, struct span value)
{
	static const struct { const char *name, *off; } missing[] = {
		{ "auth_ldap_options", "" }, { "dns_zone_check_period", "0" },
		{ "login_notify_message", "" }, { "peer_id", "0" },
		{ "resolv_conf", "" },
	};

	for (size_t i = 0; i < sizeof(missing) / sizeof(missing[0]); i++)
		if (span_is(name, missing[i].name))
			return value.len == 0 ||
			    span_is(value, missing[i].off) ?
			    CONF_NOT_YET_BUT_OFF : CONF_NOT_YET;
	return CONF_UNKNOWN;
}

/*
 * Did you mean
 */

#define NAME_MAX_LEN 48

/* How many letters have to be put in, left out, changed or swapped with
 * their neighbour to make one word of the other (optimal alignment). */
static unsigned
word_distance(struct span a, struct span b)
{
	unsigned row[3][NAME_MAX_LEN + 1];
	unsigned *before = row[0], *above = row[1], *now = row[2], *spare;

	for (unsigned k = 0; k <= b.len; k++)
		above[k] = k;
	for (unsigned i = 1; i <= a.len; i++) {
		now[0] = i;
		for (unsigned k = 1; k <= b.len; k++) {
			bool same = a.at[i - 1] == b.at[k - 1];

			now[k] = above[k - 1] + (same ? 0 : 1);
			if (above[k] + 1 < now[k])
				now[k] = above[k] + 1;
			if (now[k - 1] + 1 < now[k])
				now[k] = now[k - 1] + 1;
			if (i > 1 && k > 1 && a.at[i - 1] == b.at[k - 2] &&
			    a.at[i - 2] == b.at[k - 1] &&
			    before[k - 2] + 1 < now[k])
				now[k] = before[k - 2] + 1;
		}
		spare = before;
		before = above;
		above = now;
		now = spare;
	}
	return above[b.len];
}

const char *
conf_suggest(struct span name,
    const char *(*name_at)(const void *arg, unsigned index), const void *arg)
{
	const char *best = NULL, *candidate;
	unsigned best_distance = 1 + (unsigned)name.len / 3;

	if (name.len > NAME_MAX_LEN)
		return NULL;
	if (best_distance > 4)
		best_distance = 4;
	for (unsigned i = 0; (candidate = name_at(arg, i)) != NULL; i++) {
		struct span other = span_of(candidate);
		unsigned distance;

		if (other.len > NAME_MAX_LEN)
			continue;
		distance = word_distance(name, other);
		if (distance < best_distance) {
			best_distance = distance;
			best = candidate;
		}
	}
	return best;
}
