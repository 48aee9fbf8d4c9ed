/*
 * Rules in pg_hba.conf's form: what each fits, what is refused, and maps from
 * proved names to users.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "auth/hba.h"
#include "base/mem.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct hba *
hba_of(const char *text, const char *ident)
{
	struct buf why = { 0 };
	struct hba *hba = hba_parse(span_of(text), "hba", span_of(ident),
	    ident != NULL ? "ident" : NULL, &why);

	if (hba == NULL)
		fail_msg("%s: %.*s", text, (int)why.len, why.at);
	assert_int_equal(why.len, 0);
	buf_finish(&why);
	return hba;
}

/* Fails a test unless the text is refused with just this. */
static void
assert_refused(const char *text, const char *ident, const char *expected)
{
	struct buf why = { 0 };

	if (hba_parse(span_of(text), "hba", span_of(ident),
	    ident != NULL ? "ident" : NULL, &why) != NULL)
		fail_msg("taken: %s", text);
	buf_add(&why, "", 1);
	assert_string_equal(why.at, expected);
	buf_finish(&why);
}

/* From "local", "1.2.3.4" or "::1"; "tls " before it: over TLS. */
static struct hba_answer
ask(const struct hba *hba, const char *from, const char *database,
    const char *user)
{
	struct hba_question question = { .database = span_of(database),
	    .user = span_of(user) };
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
	struct hba_answer answer;

	if (strncmp(from, "tls ", 4) == 0) {
		question.over_tls = true;
		from += 4;
	}
	question.replication = strcmp(database, "(replication)") == 0;
	if (inet_pton(AF_INET, from, &in.sin_addr) == 1)
		question.address = (const struct sockaddr *)&in;
	else if (inet_pton(AF_INET6, from, &in6.sin6_addr) == 1)
		question.address = (const struct sockaddr *)&in6;
	else
		assert_string_equal(from, "local");
	hba_match(hba, &question, &answer);
	return answer;
}

static void
the_first_rule_that_fits_answers(void **state)
{
	static const char rules[] =
	    "# comment\n"					/* 1 */
	    "local all all peer\n"
	    "hostssl app,\"my db\" anna 10.0.0.0/8 scram-sha-256\n"
	    "\n"
	    "hostnossl all all 10.1.2.3 255.255.255.255 md5\n"	/* 5 */
	    "host sameuser all 192.168.0.0/16 password\n"
	    "host \"all\" all all trust # a database named all\n"
	    "host x, y \\\n"					/* 8, 9 */
	    "  all ::1/128 plain\n"
	    "hostssl z all 0.0.0.0/0 cert\n"			/* 10 */
	    "host all \"with \"\"quote\" fe80::/10 reject\n"
	    "host replication rep all md5\n"
	    "host last all 8.0.0.0/7 trust";			/* 13 */
	static const struct {
		const char *from, *database, *user;
		enum login_method method;
		unsigned line;
	} rows[] = {
		{ "local", "any", "any", LOGIN_PEER, 2 },
		{ "tls 10.255.0.1", "app", "anna", LOGIN_SCRAM, 3 },
		{ "tls ::ffff:10.255.0.1", "app", "anna", LOGIN_SCRAM, 3 },
		{ "tls 10.255.0.1", "my db", "anna", LOGIN_SCRAM, 3 },
		{ "10.255.0.1", "app", "anna", LOGIN_REJECT, 0 },
		{ "tls 11.0.0.1", "app", "anna", LOGIN_REJECT, 0 },
		{ "tls 10.0.0.1", "apps", "anna", LOGIN_REJECT, 0 },
		{ "tls 10.0.0.1", "app", "ann", LOGIN_REJECT, 0 },
		{ "tls 10.0.0.1", "App", "anna", LOGIN_REJECT, 0 },
		{ "10.1.2.3", "app", "anna", LOGIN_MD5, 5 },
		{ "tls 10.1.2.3", "q", "anna", LOGIN_REJECT, 0 },
		{ "10.1.2.4", "q", "anna", LOGIN_REJECT, 0 },
		{ "192.168.3.4", "bob", "bob", LOGIN_PLAIN, 6 },
		{ "192.168.3.4", "bob", "rob", LOGIN_REJECT, 0 },
		{ "1.2.3.4", "all", "bob", LOGIN_TRUST, 7 },
		{ "::2", "all", "bob", LOGIN_TRUST, 7 },
		{ "::1", "x", "bob", LOGIN_PLAIN, 8 },
		{ "::1", "y", "bob", LOGIN_PLAIN, 8 },
		{ "::2", "y", "bob", LOGIN_REJECT, 0 },
		{ "0.0.0.1", "y", "bob", LOGIN_REJECT, 0 },
		{ "tls 9.9.9.9", "z", "bob", LOGIN_CERT, 10 },
		{ "tls ::9", "z", "bob", LOGIN_REJECT, 0 },
		{ "9.9.9.9", "z", "bob", LOGIN_REJECT, 0 },
		{ "febf::1", "q", "with \"quote", LOGIN_REJECT, 11 },
		{ "fec0::1", "q", "with \"quote", LOGIN_REJECT, 0 },
		{ "1.1.1.1", "(replication)", "rep", LOGIN_MD5, 12 },
		{ "1.1.1.1", "replication", "rep", LOGIN_REJECT, 0 },
		{ "local", "(replication)", "rep", LOGIN_REJECT, 0 },
		{ "9.255.255.255", "last", "bob", LOGIN_TRUST, 13 },
		{ "10.0.0.0", "last", "bob", LOGIN_REJECT, 0 },
		{ "7.255.255.255", "last", "bob", LOGIN_REJECT, 0 },
	};
	struct hba *hba = hba_of(rules, NULL);
	struct hba_answer answer;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++) {
		answer = ask(hba, rows[i].from, rows[i].database,
		    rows[i].user);
		if (answer.line != rows[i].line ||
		    answer.method != rows[i].method)
			fail_msg("%s %s %s: line %u, method %d", rows[i].from,
			    rows[i].database, rows[i].user, answer.line,
			    (int)answer.method);
		assert_null(answer.map);
	}
	hba_unref(hba);
}

static void
without_rules_everybody_is_rejected(void **state)
{
	struct hba *hba = hba_of("", NULL);
	struct hba_answer answer = { .line = 9, .method = LOGIN_TRUST };

	(void)state;
	answer = ask(hba, "local", "a", "b");
	assert_int_equal(answer.method, LOGIN_REJECT);
	assert_int_equal(answer.line, 0);
	hba_unref(hba_ref(hba));
	answer = ask(hba, "tls 1.2.3.4", "a", "b");
	assert_int_equal(answer.method, LOGIN_REJECT);
	hba_unref(hba);
}

static void
a_unix_socket_may_come_with_its_address(void **state)
{
	struct sockaddr address = { .sa_family = AF_UNIX };
	struct hba_question question = { .address = &address,
	    .database = SPAN("a"), .user = SPAN("b") };
	struct hba *hba = hba_of("host all all all trust\n"
	    "local all all md5\n", NULL);
	struct hba_answer answer;

	(void)state;
	hba_match(hba, &question, &answer);
	assert_int_equal(answer.line, 2);
	hba_unref(hba);
}

static const struct {
	const char *rule, *why;
} bad_rules[] = {
	{ "hostgssenc all all all trust",
	    "hba:1: unknown type of rule: hostgssenc" },
	{ "hosts all all all trust",
	    "hba:1: unknown type of rule: hosts" },
	{ "local", "hba:1: the rule ends before its database" },
	{ "local all", "hba:1: the rule ends before its user" },
	{ "local all all", "hba:1: the rule ends before its method" },
	{ "host all all", "hba:1: the rule ends before its address" },
	{ "host all all trust", "hba:1: trust is no address: all, an "
	    "address with /bits, or an address and a mask are "
	    "understood" },
	{ "host all all samehost trust", "hba:1: samehost is no "
	    "address: all, an address with /bits, or an address and "
	    "a mask are understood" },
	{ "host all all .example.com trust", "hba:1: .example.com is "
	    "no address: all, an address with /bits, or an address "
	    "and a mask are understood" },
	{ "host all all 1.2.3.4/33 trust", "hba:1: 1.2.3.4/33 is no "
	    "address: all, an address with /bits, or an address and "
	    "a mask are understood" },
	{ "host all all 1.2.3/8 trust", "hba:1: 1.2.3/8 is no "
	    "address: all, an address with /bits, or an address and "
	    "a mask are understood" },
	{ "host all all ::1/129 trust", "hba:1: ::1/129 is no "
	    "address: all, an address with /bits, or an address and "
	    "a mask are understood" },
	{ "host all all ::1/ trust", "hba:1: ::1/ is no "
	    "address: all, an address with /bits, or an address and "
	    "a mask are understood" },
	{ "host all all \"\" trust", "hba:1:  is no "
	    "address: all, an address with /bits, or an address and "
	    "a mask are understood" },
	{ "host all all 1.2.3.4 trust",
	    "hba:1: trust is no mask for 1.2.3.4" },
	{ "host all all 1.2.3.4 ffff:: trust",
	    "hba:1: ffff:: is no mask for 1.2.3.4" },
	{ "host all all 1.2.3.4", "hba:1: the rule ends before its "
	    "mask" },
	{ "host all all all,all trust",
	    "hba:1: one address is expected, not a list" },
	{ "local all all trust,md5",
	    "hba:1: one method is expected, not a list" },
	{ "local all all ldap",
	    "hba:1: method ldap is not supported" },
	{ "local all all TRUST",
	    "hba:1: method TRUST is not supported" },
	{ "host all all all peer",
	    "hba:1: peer is for local rules only" },
	{ "host all all all cert",
	    "hba:1: cert is for hostssl rules only" },
	{ "local all all cert",
	    "hba:1: cert is for hostssl rules only" },
	{ "local samerole all trust",
	    "hba:1: samerole is not supported" },
	{ "local all +staff trust", "hba:1: +staff: expressions and "
	    "groups are not supported (a name like this goes into "
	    "quotes)" },
	{ "local /^a all trust", "hba:1: /^a: expressions and "
	    "groups are not supported (a name like this goes into "
	    "quotes)" },
	{ "local @ all trust", "hba:1: @: expressions and "
	    "groups are not supported (a name like this goes into "
	    "quotes)" },
	{ "local all, trust", "hba:1: the rule ends before its "
	    "user" },
	{ "local , all trust", "hba:1: a comma has no name before "
	    "it" },
	{ "local \"\" all trust", "hba:1: a name is empty" },
	{ "local \"all all trust", "hba:1: a quote is not closed" },
	{ "local all all trust map=m",
	    "hba:1: map is for cert and peer only" },
	{ "local all all peer map=m",
	    "hba:1: there is no ident map m" },
	{ "local all all peer map=",
	    "hba:1: option map= is not supported" },
	{ "hostssl all all all cert clientcert=1",
	    "hba:1: option clientcert=1 is not supported" },
};

static void
what_is_not_understood_is_refused(void **state)
{
	struct buf why = { 0 };
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(bad_rules); i++)
		assert_refused(bad_rules[i].rule, NULL, bad_rules[i].why);
	assert_refused("local all all trust\nx\n\nlocal a b \\\n c\nlocal a",
	    NULL, "hba:2: unknown type of rule: x\n"
	    "hba:4: method c is not supported\n"
	    "hba:6: the rule ends before its user");
	assert_null(hba_parse(SPAN("local all a\0b trust"), "hba", SPAN_NONE,
	    NULL, &why));
	assert_true(span_is(buf_span(&why), "hba:1: a NUL byte"));
	buf_finish(&why);
	/* One error does not hide the next. */
	assert_refused("local\nlocal all", NULL,
	    "hba:1: the rule ends before its database\n"
	    "hba:2: the rule ends before its user");
}

static void
names_may_stand_in_a_file_of_their_own(void **state)
{
	char folder[] = "/tmp/test_hba.XXXXXX", path[64], names[64];
	struct buf why = { 0 };
	struct hba *hba;
	FILE *file;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/hba", folder);
	snprintf(names, sizeof(names), "%s/names", folder);
	file = fopen(path, "w");
	fputs("local all bob,@names,rob trust\n", file);
	fclose(file);
	assert_null(hba_load(path, NULL, &why));
	assert_non_null(memmem(why.at, why.len, "/names: ", 8));
	assert_non_null(memmem(why.at, why.len, "/hba:1: ", 8));
	file = fopen(names, "w");
	fputs("anna, \"all\"\n# no\nberta all\n", file);
	fclose(file);
	hba = hba_load(path, NULL, &why);
	assert_non_null(hba);
	assert_int_equal(ask(hba, "local", "d", "anna").line, 1);
	assert_int_equal(ask(hba, "local", "d", "berta").line, 1);
	assert_int_equal(ask(hba, "local", "d", "rob").line, 1);
	assert_int_equal(ask(hba, "local", "d", "bob").line, 1);
	assert_int_equal(ask(hba, "local", "d", "all").line, 1);
	assert_int_equal(ask(hba, "local", "d", "no").line, 0);
	hba_unref(hba);
	file = fopen(names, "w");
	fputs("anna\n@names\n", file);
	fclose(file);
	buf_clear(&why);
	assert_null(hba_load(path, NULL, &why));
	assert_non_null(memmem(why.at, why.len, "/names:2: only names", 20));
	buf_finish(&why);
	unlink(names);
	unlink(path);
	rmdir(folder);
}

static void
a_map_says_who_may_be_whom(void **state)
{
	static const char maps[] =
	    "# map system user\n"
	    "m anna anna_db\n"
	    "m root all\n"
	    "m \"with blank\" \"all\"\n"
	    "m /^(.*)@corp\\.com$ \\1\n"
	    "m \"/^x(1|2)y, \" a\\1b\n"
	    "m /z(q)?z zed\\1\n"
	    "other anna bob\n";
	static const struct {
		const char *map, *system_name, *user;
		bool allowed;
	} rows[] = {
		{ "m", "anna", "anna_db", true },
		{ "m", "anna", "anna", false },
		{ "m", "Anna", "anna_db", false },
		{ "m", "anna_db", "anna_db", false },
		{ "m", "root", "whoever", true },
		{ "m", "root", "", false },
		{ "m", "", "anna_db", false },
		{ "m", "with blank", "all", true },
		{ "m", "with blank", "bob", false },
		{ "m", "bob@corp.com", "bob", true },
		{ "m", "bob@corp.com", "rob", false },
		{ "m", "bob@corp.com", "bo", false },
		{ "m", "bob@corp.com", "bobb", false },
		{ "m", "bob@corp-com", "bob", false },
		{ "m", "bob@corp.com.evil", "bob", false },
		{ "m", "@corp.com", "", false },
		{ "m", "x2y, and more", "a2b", true },
		{ "m", "x2y, and more", "a1b", false },
		{ "m", "x3y, and more", "a3b", false },
		{ "m", "zz", "zed", true },
		{ "m", "zqz", "zedq", true },
		{ "other", "anna", "bob", true },
		{ "other", "anna", "anna_db", false },
		{ "none", "anna", "anna_db", false },
		{ NULL, "anna", "anna", true },
		{ NULL, "anna", "anna_db", false },
		{ NULL, "anna", "ann", false },
		{ NULL, "", "", false },
	};
	struct hba *hba = hba_of("local all all peer map=m\n"
	    "hostssl all all all cert map=\"other\"", maps);
	char name[2000];
	size_t i;

	(void)state;
	assert_string_equal(ask(hba, "local", "d", "u").map, "m");
	assert_string_equal(ask(hba, "tls ::1", "d", "u").map, "other");
	for (i = 0; i < COUNT(rows); i++)
		if (hba_map_allows(hba, rows[i].map,
		    span_of(rows[i].system_name), span_of(rows[i].user)) !=
		    rows[i].allowed)
			fail_msg("%s as %s", rows[i].system_name,
			    rows[i].user);
	assert_false(hba_map_allows(hba, "m", (struct span){ "root\0x", 6 },
	    SPAN("whoever")));
	memset(name, 'x', sizeof(name));
	memcpy(name + sizeof(name) - 9, "@corp.com", 9);
	assert_false(hba_map_allows(hba, "m", (struct span){ name,
	    sizeof(name) }, (struct span){ name, sizeof(name) - 9 }));
	hba_unref(hba);
}

static void
a_map_that_is_not_understood_is_refused(void **state)
{
	static const struct {
		const char *map, *why;
	} rows[] = {
		{ "m", "ident:1: map, system name and user should stand "
		    "here" },
		{ "m a\nm b", "ident:1: map, system name and user should "
		    "stand here\nident:2: map, system name and user should "
		    "stand here" },
		{ "m a b c", "ident:1: too many words" },
		{ "m a,b c", "ident:1: one name is expected, not a list" },
		{ "m \"\" c", "ident:1: a name is empty" },
		{ "m a +c", "ident:1: an expression or a group in the place "
		    "of the user is not supported" },
		{ "m a /c", "ident:1: an expression or a group in the place "
		    "of the user is not supported" },
		{ "m /a \\1", "ident:1: \\1 needs an expression with a "
		    "group" },
		{ "m a \"b", "ident:1: a quote is not closed" },
	};
	struct buf why = { 0 }, long_one = { 0 };
	size_t i;

	(void)state;
	for (i = 0; i < COUNT(rows); i++)
		assert_refused("local all all trust", rows[i].map,
		    rows[i].why);
	assert_null(hba_parse(SPAN(""), "hba", SPAN("m /a( b"), "ident",
	    &why));
	assert_non_null(memmem(why.at, why.len, "ident:1: bad expression", 23));
	buf_add_text(&long_one, "m /");
	for (i = 0; i < 1025; i++)
		buf_add_text(&long_one, "a");
	buf_add_text(&long_one, " b");
	buf_clear(&why);
	assert_null(hba_parse(SPAN(""), "hba", buf_span(&long_one), "ident",
	    &why));
	assert_non_null(memmem(why.at, why.len, "too long", 8));
	buf_finish(&long_one);
	buf_finish(&why);
}

static void
without_memory_there_are_no_rules(void **state)
{
	struct hba *hba = NULL;
	uint64_t nth;

	(void)state;
	for (nth = 1; hba == NULL; nth++) {
		struct buf why = { 0 };

		mem_fail_nth(nth);
		hba = hba_parse(SPAN("local a,b c peer map=m\n"
		    "hostssl d e 1.2.3.4/5 cert map=m\n"), "hba",
		    SPAN("m a b\nm /(x) \\1\n"), "ident", &why);
		mem_fail_nth(0);
		buf_finish(&why);
		assert_true(nth < 100);
	}
	assert_true(nth > 20);
	assert_int_equal(ask(hba, "local", "b", "c").line, 1);
	assert_int_equal(ask(hba, "tls 1.2.3.4", "d", "e").line, 2);
	hba_unref(hba);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_rule_that_fits_answers),
		cmocka_unit_test(without_rules_everybody_is_rejected),
		cmocka_unit_test(a_unix_socket_may_come_with_its_address),
		cmocka_unit_test(what_is_not_understood_is_refused),
		cmocka_unit_test(names_may_stand_in_a_file_of_their_own),
		cmocka_unit_test(a_map_says_who_may_be_whom),
		cmocka_unit_test(a_map_that_is_not_understood_is_refused),
		cmocka_unit_test(without_memory_there_are_no_rules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
