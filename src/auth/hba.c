/*
 * Who may come from where, and what proof is asked for: pg_hba.conf's form.
 *
 *	type       database  user  [address]     method         [options]
 *	local      all       all                 peer           map=staff
 *	hostssl    app,"my db" @users 10.0.0.0/8 scram-sha-256
 *	hostnossl  all       all   10.0.0.1 255.255.255.255     md5
 *	host       all       all   all           reject
 *
 * The first rule that fits answers; if none does, the answer is to reject. A
 * word in quotes is never a keyword.
 *
 * The whole file is refused, with file:line, for anything that is not
 * understood: a host name as address, samehost, samenet, samerole, +group, an
 * expression as a name, an unknown method or option. Ignoring any of them
 * would make a rule say more than its author meant.
 *
 * IPv4 clients of a socket that speaks both families come as ::ffff:a.b.c.d
 * and are compared as the IPv4 addresses that they are.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>

#include "auth/hba.h"
#include "auth/ident.h"
#include "auth/lines.h"
#include "base/check.h"
#include "base/map.h"
#include "base/mem.h"

#define HBA_MAGIC 0x4ba0aa01u
#define HBA_FILE_MAX (16u * 1024 * 1024)	/* bytes */
#define NAMES_FILE_MAX (4u * 1024 * 1024)	/* of an @file */

enum hba_type { HBA_LOCAL, HBA_HOST, HBA_HOSTSSL, HBA_HOSTNOSSL };

enum name_kind { NAME_IS, NAME_ALL, NAME_SAMEUSER, NAME_REPLICATION };

/* What a database or user may be: any of a list. */
struct name {
	struct name *next;
	enum name_kind kind;
	char *text;			/* NAME_IS */
};

struct address {
	int family;			/* AF_INET, AF_INET6; 0 = none */
	size_t len;			/* bytes: 4 or 16 */
	unsigned char bytes[16];
};

struct hba_rule {
	struct list node;		/* in hba.rules */
	unsigned line;
	enum hba_type type;
	struct name *databases, *users;
	struct address net, mask;	/* family 0 = all */
	enum login_method method;
	char *map;
};

struct hba {
	uint32_t magic;
	atomic_uint refs;
	struct list rules;
	struct ident *ident;		/* NULL = no maps */
};

MEM_TYPE(hba_mem, hba);
MEM_TYPE(hba_rule_mem, hba_rule);
MEM_TYPE(name_mem, name);

static const struct {
	const char *name;
	enum hba_type type;
} hba_types[] = {
	{ "local",	HBA_LOCAL },
	{ "host",	HBA_HOST },
	{ "hostssl",	HBA_HOSTSSL },
	{ "hostnossl",	HBA_HOSTNOSSL },
};

static const struct {
	const char *name;
	enum login_method method;
} hba_methods[] = {
	{ "trust",		LOGIN_TRUST },
	{ "reject",		LOGIN_REJECT },
	{ "md5",		LOGIN_MD5 },
	{ "scram-sha-256",	LOGIN_SCRAM },
	{ "password",		LOGIN_PLAIN },
	{ "plain",		LOGIN_PLAIN },
	{ "cert",		LOGIN_CERT },
	{ "peer",		LOGIN_PEER },
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static void
names_destroy(struct name *names)
{
	struct name *next;

	for (; names != NULL; names = next) {
		next = names->next;
		mem_free(names->text);
		mem_delete(&name_mem, names);
	}
}

static void
hba_rule_destroy(struct hba_rule *rule)
{
	names_destroy(rule->databases);
	names_destroy(rule->users);
	mem_free(rule->map);
	mem_delete(&hba_rule_mem, rule);
}

struct hba *
hba_ref(struct hba *hba)
{
	check_magic(hba, HBA_MAGIC);
	atomic_fetch_add(&hba->refs, 1);
	return hba;
}

void
hba_unref(struct hba *hba)
{
	struct list *node;

	if (hba == NULL)
		return;
	check_magic(hba, HBA_MAGIC);
	if (atomic_fetch_sub(&hba->refs, 1) != 1)
		return;
	while ((node = list_pop(&hba->rules)) != NULL)
		hba_rule_destroy(container_of(node, struct hba_rule, node));
	ident_destroy(hba->ident);
	mem_delete(&hba_mem, hba);
}

/* ---- names ---- */

enum names_of { NAMES_OF_DATABASES, NAMES_OF_USERS };

/* False: complained. */
static bool
names_add(struct name **names, struct lines *lines, enum name_kind kind,
    struct span text)
{
	struct name *name;

	if (text.len == 0) {
		lines_complain(lines, "a name is empty");
		return false;
	}
	name = mem_new(&name_mem);
	if (name != NULL) {
		name->kind = kind;
		name->text = mem_strndup(text.at, text.len);
		name->next = *names;
		*names = name;
	}
	if (name != NULL && name->text != NULL)
		return true;
	lines_complain(lines, "out of memory");
	return false;
}

/* The words of an @file: names, whatever they look like but for what is
 * refused in a rule too. */
static bool
names_add_file(struct name **names, struct lines *rule, struct span path)
{
	const char *slash = path.at[0] == '/' ? NULL :
	    strrchr(rule->file, '/');
	struct buf text = { 0 };
	struct lines lines;
	struct word word;
	bool good = false;
	char *full;

	full = mem_printf("%.*s%s", slash != NULL ?
	    (int)(slash - rule->file + 1) : 0, rule->file, path.at);
	if (full == NULL) {
		lines_complain(rule, "out of memory");
		return false;
	}
	if (lines_read_file(full, NAMES_FILE_MAX, &text, NULL, rule->why)) {
		lines_begin(&lines, full, buf_span(&text), rule->why);
		while (lines_next(&lines))
			while (lines_next_word(&lines, &word))
				if (!word.quoted && (word.text.at[0] == '@' ||
				    word.text.at[0] == '+' ||
				    word.text.at[0] == '/'))
					lines_complain(&lines, "only names may "
					    "stand here");
				else if (!names_add(names, &lines, NAME_IS,
				    word.text))
					break;
		good = !lines.failed;
		lines_finish(&lines);
	}
	if (!good)
		lines_complain(rule, "the file above is not usable");
	buf_finish(&text);
	mem_free(full);
	return good;
}

static bool
names_add_word(struct name **names, struct lines *lines,
    const struct word *word, enum names_of what)
{
	struct span text = word->text;

	if (word->quoted)
		return names_add(names, lines, NAME_IS, text);
	if (span_is(text, "all"))
		return names_add(names, lines, NAME_ALL, text);
	if (text.at[0] == '@' && text.len > 1) {
		text.at++;
		text.len--;
		return names_add_file(names, lines, text);
	}
	if (text.at[0] == '/' || text.at[0] == '+' || text.at[0] == '@') {
		lines_complain(lines, "%s: expressions and groups are not "
		    "supported (a name like this goes into quotes)", text.at);
		return false;
	}
	if (what == NAMES_OF_USERS)
		return names_add(names, lines, NAME_IS, text);
	if (span_is(text, "sameuser"))
		return names_add(names, lines, NAME_SAMEUSER, text);
	if (span_is(text, "replication"))
		return names_add(names, lines, NAME_REPLICATION, text);
	if (span_is(text, "samerole") || span_is(text, "samegroup")) {
		lines_complain(lines, "%s is not supported", text.at);
		return false;
	}
	return names_add(names, lines, NAME_IS, text);
}

/* A field: a list of names with commas between. */
static bool
names_read(struct name **names, struct lines *lines, enum names_of what)
{
	struct word word;

	do {
		if (!lines_next_word(lines, &word)) {
			if (!lines->line_failed)
				lines_complain(lines, "the rule ends before "
				    "its %s", what == NAMES_OF_USERS ?
				    "user" : "database");
			return false;
		}
		if (!names_add_word(names, lines, &word, what))
			return false;
	} while (word.goes_on);
	return true;
}

/* ---- addresses ---- */

/* A field that is one word; its keywords may be quoted, as in Postgres. */
static bool
read_one_word(struct lines *lines, struct word *ret, const char *what)
{
	if (!lines_next_word(lines, ret)) {
		if (!lines->line_failed)
			lines_complain(lines, "the rule ends before its %s",
			    what);
		return false;
	}
	if (ret->goes_on) {
		lines_complain(lines, "one %s is expected, not a list", what);
		return false;
	}
	return true;
}

static bool
address_parse(const char *text, struct address *ret)
{
	struct address read = { .family = AF_INET, .len = 4 };

	if (inet_pton(AF_INET, text, read.bytes) != 1) {
		read.family = AF_INET6;
		read.len = 16;
		if (inet_pton(AF_INET6, text, read.bytes) != 1)
			return false;
	}
	*ret = read;
	return true;
}

static struct address
address_of_bits(const struct address *like, unsigned bits)
{
	struct address mask = { .family = like->family, .len = like->len };
	unsigned i;

	for (i = 0; i < bits; i++)
		mask.bytes[i / 8] |= (unsigned char)(0x80 >> i % 8);
	return mask;
}

/* "address/bits"; false when it is none. */
static bool
address_parse_cidr(struct span text, struct hba_rule *rule)
{
	char address[INET6_ADDRSTRLEN];
	const char *slash = memchr(text.at, '/', text.len);
	struct span bits;
	uint64_t count;
	size_t len;

	if (slash == NULL)
		return false;
	len = (size_t)(slash - text.at);
	bits.at = slash + 1;
	bits.len = text.len - len - 1;
	if (len >= sizeof(address))
		return false;
	memcpy(address, text.at, len);
	address[len] = '\0';
	if (!address_parse(address, &rule->net) ||
	    !span_parse_u64(bits, &count) || count > rule->net.len * 8)
		return false;
	rule->mask = address_of_bits(&rule->net, (unsigned)count);
	return true;
}

static bool
hba_read_address(struct hba_rule *rule, struct lines *lines)
{
	struct word word, mask;

	if (!read_one_word(lines, &word, "address"))
		return false;
	if (!word.quoted && span_is(word.text, "all"))
		return true;
	if (word.text.len != 0 && address_parse_cidr(word.text, rule))
		return true;
	if (word.text.len == 0 || !address_parse(word.text.at, &rule->net)) {
		lines_complain(lines, "%s is no address: all, an address with "
		    "/bits, or an address and a mask are understood",
		    word.text.at);
		return false;
	}
	if (!read_one_word(lines, &mask, "mask"))
		return false;
	if (!address_parse(mask.text.at, &rule->mask) ||
	    rule->mask.family != rule->net.family) {
		lines_complain(lines, "%s is no mask for %s", mask.text.at,
		    word.text.at);
		return false;
	}
	return true;
}

/* ---- rules ---- */

static bool
hba_read_type(struct hba_rule *rule, struct lines *lines)
{
	struct word word;
	size_t i;

	if (!read_one_word(lines, &word, "type"))
		return false;
	for (i = 0; i < COUNT(hba_types); i++)
		if (span_is(word.text, hba_types[i].name)) {
			rule->type = hba_types[i].type;
			return true;
		}
	lines_complain(lines, "unknown type of rule: %s", word.text.at);
	return false;
}

static bool
hba_read_method(struct hba_rule *rule, struct lines *lines)
{
	struct word word;
	size_t i;

	if (!read_one_word(lines, &word, "method"))
		return false;
	for (i = 0; i < COUNT(hba_methods); i++)
		if (span_is(word.text, hba_methods[i].name))
			break;
	if (i == COUNT(hba_methods)) {
		lines_complain(lines, "method %s is not supported",
		    word.text.at);
		return false;
	}
	rule->method = hba_methods[i].method;
	if (rule->method == LOGIN_PEER && rule->type != HBA_LOCAL) {
		lines_complain(lines, "peer is for local rules only");
		return false;
	}
	if (rule->method == LOGIN_CERT && rule->type != HBA_HOSTSSL) {
		lines_complain(lines, "cert is for hostssl rules only");
		return false;
	}
	return true;
}

/* What may follow the method: map=NAME. */
static bool
hba_read_options(struct hba_rule *rule, struct lines *lines,
    const struct ident *ident)
{
	struct word word;

	while (lines_next_word(lines, &word)) {
		if (word.goes_on || rule->map != NULL ||
		    !span_starts_case(word.text, "map=") ||
		    word.text.len == 4) {
			lines_complain(lines, "option %s is not supported",
			    word.text.at);
			return false;
		}
		if (rule->method != LOGIN_CERT &&
		    rule->method != LOGIN_PEER) {
			lines_complain(lines, "map is for cert and peer only");
			return false;
		}
		rule->map = mem_strdup(word.text.at + 4);
		if (rule->map == NULL) {
			lines_complain(lines, "out of memory");
			return false;
		}
		if (ident == NULL || !ident_has_map(ident, rule->map)) {
			lines_complain(lines, "there is no ident map %s",
			    rule->map);
			return false;
		}
	}
	return !lines->line_failed;
}

static void
hba_read_rule(struct hba *hba, struct lines *lines)
{
	struct hba_rule *rule = mem_new(&hba_rule_mem);

	if (rule == NULL) {
		lines_complain(lines, "out of memory");
		return;
	}
	rule->line = lines->line;
	if (hba_read_type(rule, lines) &&
	    names_read(&rule->databases, lines, NAMES_OF_DATABASES) &&
	    names_read(&rule->users, lines, NAMES_OF_USERS) &&
	    (rule->type == HBA_LOCAL || hba_read_address(rule, lines)) &&
	    hba_read_method(rule, lines) &&
	    hba_read_options(rule, lines, hba->ident))
		list_append(&hba->rules, &rule->node);
	else
		hba_rule_destroy(rule);
}

struct hba *
hba_parse(struct span text, const char *file, struct span ident_text,
    const char *ident_file_or_null, struct buf *ret_why)
{
	struct hba *hba = mem_new(&hba_mem);
	struct lines lines;

	lines_begin(&lines, file, text, ret_why);
	if (hba == NULL) {
		lines_complain(&lines, "out of memory");
		return NULL;
	}
	hba->magic = HBA_MAGIC;
	atomic_init(&hba->refs, 1);
	list_init(&hba->rules);
	if (ident_file_or_null != NULL) {
		hba->ident = ident_parse(ident_text, ident_file_or_null,
		    ret_why);
		if (hba->ident == NULL) {
			hba_unref(hba);
			return NULL;
		}
	}
	while (lines_next(&lines))
		hba_read_rule(hba, &lines);
	if (lines.failed) {
		hba_unref(hba);
		hba = NULL;
	}
	lines_finish(&lines);
	return hba;
}

struct hba *
hba_load(const char *path, const char *ident_path_or_null,
    struct buf *ret_why)
{
	struct buf text = { 0 }, ident_text = { 0 };
	struct hba *hba = NULL;

	if (lines_read_file(path, HBA_FILE_MAX, &text, NULL, ret_why) &&
	    (ident_path_or_null == NULL || lines_read_file(ident_path_or_null,
	    HBA_FILE_MAX, &ident_text, NULL, ret_why)))
		hba = hba_parse(buf_span(&text), path, buf_span(&ident_text),
		    ident_path_or_null, ret_why);
	buf_finish(&text);
	buf_finish(&ident_text);
	return hba;
}

/* ---- answers ---- */

static struct address
address_of_socket(const struct sockaddr *socket)
{
	static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };
	struct address address = { 0 };
	struct sockaddr_in in;
	struct sockaddr_in6 in6;

	if (socket == NULL)
		return address;
	if (socket->sa_family == AF_INET) {
		memcpy(&in, socket, sizeof(in));
		address.family = AF_INET;
		address.len = 4;
		memcpy(address.bytes, &in.sin_addr, 4);
	} else if (socket->sa_family == AF_INET6) {
		memcpy(&in6, socket, sizeof(in6));
		address.family = AF_INET6;
		address.len = 16;
		memcpy(address.bytes, &in6.sin6_addr, 16);
		if (memcmp(address.bytes, mapped, sizeof(mapped)) == 0) {
			address.family = AF_INET;
			address.len = 4;
			memmove(address.bytes, address.bytes + 12, 4);
		}
	}
	return address;
}

static bool
names_match(const struct name *names, struct span name,
    const struct hba_question *question)
{
	for (; names != NULL; names = names->next)
		switch (names->kind) {
		case NAME_IS:
			if (span_is(name, names->text))
				return true;
			break;
		case NAME_ALL:
			return true;
		case NAME_SAMEUSER:
			if (span_eq(name, question->user))
				return true;
			break;
		case NAME_REPLICATION:
			break;		/* names no database */
		}
	return false;
}

static bool
database_matches(const struct name *names,
    const struct hba_question *question)
{
	if (!question->replication)
		return names_match(names, question->database, question);
	for (; names != NULL; names = names->next)
		if (names->kind == NAME_REPLICATION)
			return true;
	return false;
}

static bool
type_matches(enum hba_type type, const struct hba_question *question)
{
	if (question->address == NULL ||
	    question->address->sa_family == AF_UNIX)
		return type == HBA_LOCAL;
	switch (type) {
	case HBA_LOCAL:
		return false;
	case HBA_HOST:
		return true;
	case HBA_HOSTSSL:
		return question->over_tls;
	case HBA_HOSTNOSSL:
		return !question->over_tls;
	}
	return false;
}

static bool
address_matches(const struct hba_rule *rule, const struct address *address)
{
	size_t i;

	if (rule->net.family == 0)
		return true;
	if (rule->net.family != address->family)
		return false;
	for (i = 0; i < address->len; i++)
		if (((address->bytes[i] ^ rule->net.bytes[i]) &
		    rule->mask.bytes[i]) != 0)
			return false;
	return true;
}

void
hba_match(const struct hba *hba, const struct hba_question *question,
    struct hba_answer *ret)
{
	struct address address = address_of_socket(question->address);
	const struct hba_rule *rule;
	const struct list *node;

	check_magic(hba, HBA_MAGIC);
	for (node = hba->rules.next; node != &hba->rules; node = node->next) {
		rule = container_of(node, struct hba_rule, node);
		if (type_matches(rule->type, question) &&
		    address_matches(rule, &address) &&
		    database_matches(rule->databases, question) &&
		    names_match(rule->users, question->user, question)) {
			*ret = (struct hba_answer){ .method = rule->method,
			    .line = rule->line, .map = rule->map };
			return;
		}
	}
	*ret = (struct hba_answer){ .method = LOGIN_REJECT };
}

bool
hba_map_allows(const struct hba *hba, const char *map,
    struct span system_name, struct span user)
{
	if (map == NULL)
		return user.len != 0 && span_eq(system_name, user);
	check_magic(hba, HBA_MAGIC);
	return hba->ident != NULL &&
	    ident_allows(hba->ident, map, system_name, user);
}
