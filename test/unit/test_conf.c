/* The configuration: its dialect, its errors, its defaults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"
#include "conf/conf.h"
#include "conf/conf_value.h"
#include "conf/ini.h"
#include "net/ask.h"

/* Loads text as the file "t.ini"; fails the test when it is refused. */
static struct conf *
load(const char *text)
{
	struct buf why = { 0 };
	struct conf *conf = conf_load_text("t.ini", span_of(text),
	    ask_parse_conninfo, &why);

	if (conf == NULL)
		fail_msg("refused: %.*s", (int)why.len, why.at);
	assert_int_equal(why.len, 0);
	buf_finish(&why);
	return conf;
}

/* The file must be refused with exactly these lines. */
static void
refused(const char *text, const char *expected)
{
	struct buf why = { 0 };
	struct conf *conf = conf_load_text("t.ini", span_of(text),
	    ask_parse_conninfo, &why);

	assert_null(conf);
	buf_add(&why, "", 1);
	assert_string_equal(why.at, expected);
	buf_finish(&why);
}

/* The first database entry of a file of one line. */
static const struct conf_database *
database(struct conf *conf, const char *name)
{
	const struct conf_database *db = conf_find_database(conf,
	    span_of(name));

	assert_non_null(db);
	return db;
}

static void
entry_refused(const char *entry, const char *expected)
{
	char text[512], line[512];

	snprintf(text, sizeof(text), "[databases]\na = %s\n", entry);
	snprintf(line, sizeof(line), "t.ini:2: a: %s", expected);
	refused(text, line);
}

/*
 * The dialect
 */

static void
test_empty_file_is_all_defaults(void **state)
{
	struct conf *conf = load("");

	(void)state;
	assert_int_equal(conf->o.pool_mode, POOL_TRANSACTION);
	assert_int_equal(conf->o.default_pool_size, 20);
	assert_int_equal(conf->o.query_wait_timeout_us, 120000000);
	assert_int_equal(conf->o.tcp_user_timeout_us, 120000000);
	assert_int_equal(conf->o.unix_socket_mode, 0777);
	assert_int_equal(conf->o.max_packet_size_bytes, 2147483647);
	assert_int_equal(conf->o.auth_type, AUTH_SCRAM);
	assert_string_equal(conf->o.unix_socket_dir, "/tmp");
	assert_string_equal(conf->o.listen_addr, "");
	assert_true(conf->o.log_connections);
	assert_null(conf->path);
	conf_unref(conf);
}

static void
test_both_names_of_the_section_and_indentation(void **state)
{
	struct conf *conf = load("\xef\xbb\xbf  [pgbouncer]  \r\n"
	    "\tlisten_port=6543\r\n"
	    "   ; a comment\n"
	    " # another = one\n"
	    "\n"
	    "[databases]\n"
	    "  a = host=h1\n"
	    "\t b = host=h2\n"
	    " [ pgsluice ]\n"
	    "default_pool_size   =   7");

	(void)state;
	assert_int_equal(conf->o.listen_port, 6543);
	assert_int_equal(conf->o.default_pool_size, 7);
	assert_string_equal(database(conf, "a")->hosts[0], "h1");
	assert_string_equal(database(conf, "b")->hosts[0], "h2");
	conf_unref(conf);
}

static void
test_later_lines_win(void **state)
{
	struct conf *conf = load("[pgsluice]\nlisten_port = 1\n"
	    "[databases]\na = host=old dbname=x\n* = host=old\n"
	    "[pgsluice]\nlisten_port = 2\n"
	    "[databases]\na = host=new\n* = host=new\n"
	    "[users]\nu = pool_size=1\nu = pool_mode=session\n");

	(void)state;
	assert_int_equal(conf->o.listen_port, 2);
	assert_int_equal(conf->databases.count, 1);
	assert_string_equal(database(conf, "a")->hosts[0], "new");
	assert_string_equal(database(conf, "a")->dbname, "a");
	assert_string_equal(database(conf, "zzz")->hosts[0], "new");
	assert_int_equal(conf->users.count, 1);
	assert_int_equal(conf_find_user(conf, SPAN("u"))->pool_size, -1);
	conf_unref(conf);
}

static void
test_values_keep_semicolons_hashes_and_quotes(void **state)
{
	struct conf *conf = load("[pgsluice]\n"
	    "server_reset_query = SELECT 'a' ; SELECT \"b\"; # no comment\n"
	    "auth_query = SELECT x=1: [y]\t;z\n"
	    "server_check_query =\n");

	(void)state;
	assert_string_equal(conf->o.server_reset_query,
	    "SELECT 'a' ; SELECT \"b\"; # no comment");
	assert_string_equal(conf->o.auth_query, "SELECT x=1: [y]\t;z");
	assert_string_equal(conf->o.server_check_query, "");
	conf_unref(conf);
}

/* inih cuts a line at 199 bytes and takes the rest for another setting. The
 * lengths around it are where a mistake would show. */
static void
test_long_values_come_through_whole(void **state)
{
	static char text[70000], value[60000];

	(void)state;
	for (size_t len = 150; len < sizeof(value) - 1; len = len < 800 ?
	    len + 1 : len * 3) {
		struct conf *conf;

		for (size_t i = 0; i < len; i++)
			value[i] = "ab ;=:#[]\t%'\"x,"[i % 15];
		value[0] = 'v';
		value[len - 1] = 'v';
		value[len] = '\0';
		snprintf(text, sizeof(text), "[pgsluice]\nauth_query = %s\n"
		    "listen_port = 77\n", value);
		conf = load(text);
		assert_string_equal(conf->o.auth_query, value);
		assert_int_equal(conf->o.listen_port, 77);
		conf_unref(conf);
	}
}

static void
test_names_in_double_quotes_hold_anything(void **state)
{
	struct conf *conf = load("[databases]\n"
	    "\"my db\" = host=h1\n"
	    "\"a=b;c:d\" = host=h2\n"
	    "\"say \"\"hi\"\"\"=host=h3\n"
	    "\"abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuvwxyz-"
	    "0123456789\" = host=h4 password=0123456789012345678901234567"
	    "89012345678901234567890123456789012345678901234567890123456789"
	    "0123456789012345678901234567890123456789\n"
	    "Gr\xc3\xbc\xc3\x9f-e_1.2 = host=h5\n");

	(void)state;
	assert_string_equal(database(conf, "my db")->hosts[0], "h1");
	assert_string_equal(database(conf, "a=b;c:d")->hosts[0], "h2");
	assert_string_equal(database(conf, "say \"hi\"")->hosts[0], "h3");
	assert_int_equal(strlen(database(conf, "abcdefghijklmnopqrstuvwxyz-"
	    "abcdefghijklmnopqrstuvwxyz-0123456789")->password), 130);
	assert_string_equal(database(conf, "Gr\xc3\xbc\xc3\x9f-e_1.2")->
	    hosts[0], "h5");
	conf_unref(conf);
}

static void
test_lines_that_are_no_settings_are_refused(void **state)
{
	char text[400];

	(void)state;
	refused("listen_port = 1\n",
	    "t.ini:1: a setting outside of any section");
	refused("[pgsluice]\nlisten_port\n",
	    "t.ini:2: expected: name = value (a name with spaces or other "
	    "signs goes into double quotes)");
	refused("[databases]\nmy db = host=x\n",
	    "t.ini:2: expected: name = value (a name with spaces or other "
	    "signs goes into double quotes)");
	refused("[databases]\nmydb : host=x\n",
	    "t.ini:2: expected: name = value (a name with spaces or other "
	    "signs goes into double quotes)");
	refused("[databases]\n\"my db = host=x\n",
	    "t.ini:2: the name's closing quote is missing");
	refused("[pgsluice]\n = 3\n",
	    "t.ini:2: the setting's name is missing");
	refused("[pgsluice\nlisten_port = 1\n",
	    "t.ini:1: a section is written [name]");
	refused("[pgsluice]\nuser = a\x01" "b\n",
	    "t.ini:2: the line has a control character");
	refused("%include x\n", "t.ini:1: %include works in files only");
	refused("%define x\n", "t.ini:1: the only directive is %include");
	snprintf(text, sizeof(text), "[databases]\n%0*d = host=x\n", 200, 1);
	refused(text, "t.ini:2: the name is too long");
	snprintf(text, sizeof(text), "[%0*d]\n", 200, 1);
	refused(text, "t.ini:1: this cannot be a section's name");
}

static void
test_unknown_sections_are_told_once(void **state)
{
	(void)state;
	refused("[databses]\na = host=x\nb = host=y\n",
	    "t.ini:1: [databses]: there is no such section; expected "
	    "[pgsluice], [databases] or [users]");
	refused("[peers]\n1 = host=x\n",
	    "t.ini:1: [peers]: a PgBouncer section that pgsluice does not "
	    "have yet");
}

/*
 * Errors
 */

static void
test_every_error_is_told_with_its_line(void **state)
{
	(void)state;
	refused("[pgsluice]\n"
	    "querywait_timeout = 5\n"
	    "peer_id = 3\n"
	    "listen_port = 0\n"
	    "listen_port = 70000\n"
	    "listen_port = 12x\n"
	    "stats_period = soon\n"
	    "pool_mode = pool\n"
	    "log_stats = maybe\n"
	    "tcp_user_timeout = -1\n"
	    "tcp_socket_buffer = 3XB\n"
	    "unix_socket_mode = 888\n"
	    "zzz = 1\n"
	    "[databases]\n"
	    "a = host=x poolsize=3\n"
	    "[users]\n"
	    "u = query_timout=3\n",
	    "t.ini:2: querywait_timeout: there is no such setting; did you "
	    "mean query_wait_timeout?\n"
	    "t.ini:3: peer_id: a PgBouncer setting that pgsluice does not "
	    "have yet\n"
	    "t.ini:4: listen_port: expected a whole number from 1 to 65535, "
	    "not \"0\"\n"
	    "t.ini:5: listen_port: expected a whole number from 1 to 65535, "
	    "not \"70000\"\n"
	    "t.ini:6: listen_port: expected a whole number from 1 to 65535, "
	    "not \"12x\"\n"
	    "t.ini:7: stats_period: expected a time such as 30s, 5min, 500ms "
	    "or a number of seconds, from 1s to 36500d, not \"soon\"\n"
	    "t.ini:8: pool_mode: expected session, transaction or statement, "
	    "not \"pool\"\n"
	    "t.ini:9: log_stats: expected 0 or 1, not \"maybe\"\n"
	    "t.ini:10: tcp_user_timeout: expected a time such as 30s or a "
	    "number of milliseconds, from 0 to 2147483s, not \"-1\"\n"
	    "t.ini:11: tcp_socket_buffer: expected a size such as 4096, 64kB "
	    "or 1MB, from 0 to 1GB, not \"3XB\"\n"
	    "t.ini:12: unix_socket_mode: expected an octal number from 0 to "
	    "0777, not \"888\"\n"
	    "t.ini:13: zzz: there is no such setting\n"
	    "t.ini:15: a: poolsize: there is no such key; did you mean "
	    "pool_size?\n"
	    "t.ini:17: u: query_timout: there is no such key; did you mean "
	    "query_timeout?");
}

static void
test_what_is_not_there_yet_is_refused_by_name(void **state)
{
	static const char *const names[] = {
		"auth_ldap_options", "dns_zone_check_period",
		"login_notify_message", "peer_id", "resolv_conf",
	};
	char text[200], line[200];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(text, sizeof(text), "[pgbouncer]\n%s = 7\n",
		    names[i]);
		snprintf(line, sizeof(line), "t.ini:2: %s: a PgBouncer "
		    "setting that pgsluice does not have yet", names[i]);
		refused(text, line);
	}
	refused("[pgbouncer]\nauth_type = pam\n",
	    "t.ini:2: auth_type: \"pam\" is a PgBouncer value that pgsluice "
	    "does not have yet");
	/* Another name of job_name's. */
	conf_unref(load("[pgbouncer]\nservice_name = pool\n"));
	/* Where they ask for nothing they may stand. */
	conf_unref(load("[pgbouncer]\npeer_id = 0\nresolv_conf =\n"
	    "dns_zone_check_period = 0\n"));
}

static void
test_options_that_need_one_another(void **state)
{
	(void)state;
	refused("[pgsluice]\nclient_tls_sslmode = require\n",
	    "t.ini:2: client_tls_sslmode: needs client_tls_key_file and "
	    "client_tls_cert_file");
	refused("[pgsluice]\nauth_type = hba\n",
	    "t.ini:2: auth_type: hba needs auth_hba_file");
	refused("[pgsluice]\nauth_type = cert\n",
	    "t.ini:2: auth_type: cert needs client_tls_sslmode verify-full");
	refused("[pgsluice]\nunix_socket_dir =\n",
	    "t.ini: listen_addr: nothing to listen on: this and "
	    "unix_socket_dir are both empty");
	refused("[pgsluice]\nunix_socket_dir = tmp\n",
	    "t.ini:2: unix_socket_dir: expected an absolute path, @name or "
	    "nothing");
	refused("[pgsluice]\nsyslog_facility = mail\n",
	    "t.ini:2: syslog_facility: expected auth, authpriv, daemon, user "
	    "or local0 ... local7");
	refused("[pgsluice]\nserver_tls_protocols = tlsv1.2,sslv3\n",
	    "t.ini:2: server_tls_protocols: expected secure, all or a comma "
	    "list of tlsv1.0, tlsv1.1, tlsv1.2, tlsv1.3");
	refused("[pgsluice]\nserver_tls_sslmode = verify-ca\n",
	    "t.ini:2: server_tls_sslmode: verify-ca needs a file in "
	    "server_tls_ca_file");
	refused("[databases]\na = sslmode=verify-ca\n",
	    "t.ini: a: sslmode: verify-ca needs a file in sslrootcert");
	conf_unref(load("[pgsluice]\nserver_tls_protocols = tlsv1.2,tlsv1.3\n"
	    "client_tls_protocols = all\n"));
}

static void
test_files_that_are_named_must_be_readable(void **state)
{
	(void)state;
	refused("[pgsluice]\n\nserver_tls_ca_file = /nonexistent/ca.pem\n",
	    "t.ini:3: server_tls_ca_file: cannot read "
	    "\"/nonexistent/ca.pem\": No such file or directory");
	refused("[pgsluice]\nclient_tls_ca_file = /\n",
	    "t.ini:2: client_tls_ca_file: cannot read \"/\": Is a directory");
	entry_refused("sslrootcert=/nonexistent/ca.pem",
	    "sslrootcert: cannot read \"/nonexistent/ca.pem\": No such file "
	    "or directory");
	/* Not a file. */
	conf_unref(load("[pgsluice]\nserver_tls_ca_file = system\n"));
}

static void
test_a_file_that_cannot_be_opened(void **state)
{
	struct buf why = { 0 };

	(void)state;
	assert_null(conf_load("/nonexistent/x.ini", ask_parse_conninfo,
	    &why));
	buf_add(&why, "", 1);
	assert_string_equal(why.at,
	    "/nonexistent/x.ini: No such file or directory");
	buf_finish(&why);
}

/*
 * Options
 */

static void
test_every_default_is_one_the_user_could_write(void **state)
{
	struct conf *conf = load("");

	(void)state;
	for (unsigned i = 0; i < conf_option_count(); i++) {
		const struct conf_option *option = conf_option_at(i);
		struct conf_options again = { 0 };
		struct buf text = { 0 }, why = { 0 };

		conf_field_print(&option->field, &conf->o, &text);
		assert_true(conf_field_set(&option->field, &again,
		    buf_span(&text), &why));
		if (!conf_field_equal(&option->field, &conf->o, &again))
			fail_msg("%s comes back different from \"%.*s\"",
			    option->field.name, (int)text.len, text.at);
		conf_field_finish(&option->field, &again);
		buf_finish(&text);
		buf_finish(&why);
	}
	conf_unref(conf);
}

/* Each option set in a file to something, and printed back. */
static void
test_values_print_as_pgbouncer_shows_them(void **state)
{
	static const struct { const char *name, *value, *shown; } cases[] = {
		{ "query_wait_timeout", "2min", "120" },
		{ "query_wait_timeout", "1.5", "1.5" },
		{ "query_wait_timeout", "250ms", "0.25" },
		{ "tcp_user_timeout", "1500", "1500" },
		{ "tcp_user_timeout", "2s", "2000" },
		{ "max_packet_size", "1MB", "1048576" },
		{ "unix_socket_mode", "0700", "0700" },
		{ "log_stats", "off", "0" },
		{ "log_stats", "yes", "1" },
		{ "pool_mode", "Session", "session" },
		{ "auth_type", "md5", "md5" },
		{ "server_tls_sslmode", "verify-full", "verify-full" },
		{ "log_format", "json", "json" },
		{ "max_client_conn", "00042", "42" },
	};
	struct conf *conf = load("");

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buf why = { 0 }, text = { 0 };
		int index = conf_option_find(span_of(cases[i].name));
		char file[200];
		struct conf *other;

		snprintf(file, sizeof(file), "[pgsluice]\n%s=%s\n",
		    cases[i].name, cases[i].value);
		other = load(file);
		conf_field_print(&conf_option_at((unsigned)index)->field,
		    &other->o, &text);
		buf_add(&text, "", 1);
		assert_string_equal(text.at, cases[i].shown);
		buf_finish(&text);
		buf_finish(&why);
		conf_unref(other);
	}
	conf_unref(conf);
}

struct shown {
	unsigned count, changeable;
	char port[32], port_def[32], wait_def[32];
};

static void
on_shown(void *arg, const char *name, const char *value, const char *def,
    bool changeable)
{
	struct shown *shown = arg;

	shown->count++;
	shown->changeable += changeable;
	if (strcmp(name, "listen_port") == 0) {
		snprintf(shown->port, sizeof(shown->port), "%s", value);
		snprintf(shown->port_def, sizeof(shown->port_def), "%s", def);
		assert_false(changeable);
	}
	if (strcmp(name, "query_wait_timeout") == 0)
		snprintf(shown->wait_def, sizeof(shown->wait_def), "%s", def);
}

static void
test_show_config_has_values_and_defaults(void **state)
{
	struct conf *conf = load("[pgsluice]\nlisten_port=1234\n");
	struct shown shown = { 0 };

	(void)state;
	conf_each_option(conf, on_shown, &shown);
	assert_int_equal(shown.count, conf_option_count());
	assert_true(shown.changeable > 50);
	assert_string_equal(shown.port, "1234");
	assert_string_equal(shown.port_def, "6432");
	assert_string_equal(shown.wait_def, "120");
	conf_unref(conf);
}

/* Each setting on its own, as an existing pgbouncer.ini would have it. */
static void
test_every_option_can_be_set_in_a_file(void **state)
{
	(void)state;
	for (unsigned i = 0; i < conf_option_count(); i++) {
		const struct conf_option *option = conf_option_at(i);
		char text[512];

		snprintf(text, sizeof(text), "[pgbouncer]\n%s = %s\n",
		    option->field.name, option->def);
		conf_unref(load(text));
		assert_true(strlen(option->help) > 10);
	}
}

static void
test_the_settings_page_has_every_option(void **state)
{
	struct buf page = { 0 };

	(void)state;
	conf_print_settings(&page);
	buf_add(&page, "", 1);
	assert_false(page.failed);
	for (unsigned i = 0; i < conf_option_count(); i++) {
		char heading[100];

		snprintf(heading, sizeof(heading), "\n### %s\n",
		    conf_option_at(i)->field.name);
		assert_non_null(strstr(page.at, heading));
	}
	assert_non_null(strstr(page.at, "\n## Pools and limits\n"));
	assert_non_null(strstr(page.at, "* `sslrootcert`: "));
	assert_non_null(strstr(page.at, "* `max_user_connections`: "));
	buf_finish(&page);
}

/*
 * Databases and users
 */

static void
test_a_database_takes_the_options_where_it_says_nothing(void **state)
{
	struct conf *conf = load("[databases]\na = \nb = pool_size=3 "
	    "pool_mode=session server_lifetime=1h query_wait_timeout=5 "
	    "sslmode=require reserve_pool=2 auth_user=x\n"
	    "[pgsluice]\ndefault_pool_size=11\nserver_lifetime=60\n"
	    "auth_user=global\nmax_db_connections=9\n"
	    "server_tls_sslmode=disable\n");
	const struct conf_database *a = database(conf, "a"),
	    *b = database(conf, "b");

	(void)state;
	assert_string_equal(a->dbname, "a");
	assert_int_equal(a->port, 5432);
	assert_int_equal(a->host_count, 1);
	assert_string_equal(a->hosts[0], "");
	assert_int_equal(a->pool_size, 11);
	assert_int_equal(a->pool_mode, POOL_TRANSACTION);
	assert_int_equal(a->server_lifetime_us, 60000000);
	assert_int_equal(a->query_wait_timeout_us, 120000000);
	assert_int_equal(a->sslmode, CONF_SSL_DISABLE);
	assert_string_equal(a->auth_user, "global");
	assert_int_equal(a->max_db_connections, 9);
	assert_true(a->load_balance_hosts);
	assert_false(a->migrate);
	assert_null(a->user);
	assert_null(a->password);
	assert_null(a->auth_dbname);
	assert_null(a->ssl_ca_file);
	assert_int_equal(b->pool_size, 3);
	assert_int_equal(b->pool_mode, POOL_SESSION);
	assert_int_equal(b->server_lifetime_us, 3600000000);
	assert_int_equal(b->query_wait_timeout_us, 5000000);
	assert_int_equal(b->reserve_pool_size, 2);
	assert_int_equal(b->sslmode, CONF_SSL_REQUIRE);
	assert_string_equal(b->auth_user, "x");
	assert_null(conf_find_database(conf, SPAN("c")));
	conf_unref(conf);
}

static void
test_quoting_in_an_entry(void **state)
{
	struct conf *conf = load("[databases]\n"
	    "a = host = h  port= 6000 password='it''s a = b; ''c''' "
	    "connect_query='SELECT ''x''' user=' u ' dbname=''\n");
	const struct conf_database *a = database(conf, "a");

	(void)state;
	assert_string_equal(a->hosts[0], "h");
	assert_int_equal(a->port, 6000);
	assert_string_equal(a->password, "it's a = b; 'c'");
	assert_string_equal(a->connect_query, "SELECT 'x'");
	assert_string_equal(a->user, " u ");
	assert_string_equal(a->dbname, "a");
	conf_unref(conf);
	entry_refused("host='x", "host: the closing quote is missing");
	entry_refused("host", "expected key=value key=value ... (a value "
	    "with spaces goes into single quotes)");
	/* The second half of a password must not be shown. */
	entry_refused("password=top secret", "expected key=value key=value "
	    "... (a value with spaces goes into single quotes)");
}

static void
test_several_hosts(void **state)
{
	struct conf *conf = load("[databases]\n"
	    "a = host=h1,10.0.0.1,::1,/run/pg,@x load_balance_hosts=disable "
	    "migrate=1 channel_binding=require\n");
	const struct conf_database *a = database(conf, "a");

	(void)state;
	assert_int_equal(a->host_count, 5);
	assert_string_equal(a->hosts[0], "h1");
	assert_string_equal(a->hosts[2], "::1");
	assert_string_equal(a->hosts[4], "@x");
	assert_false(a->load_balance_hosts);
	assert_true(a->migrate);
	assert_int_equal(a->channel_binding, BINDING_REQUIRE);
	conf_unref(conf);
	entry_refused("host=1,2,3,4,5,6,7,8,9", "host: more than 8");
	entry_refused("host=a,,b", "host: expected a comma list of names, "
	    "addresses, /directories and @abstract sockets");
}

static void
test_the_fallback_has_no_name_of_its_own(void **state)
{
	struct conf *conf = load("[databases]\n* = host=h\na = host=i\n");
	const struct conf_database *any = database(conf, "whatever");

	(void)state;
	assert_true(any->is_fallback);
	assert_null(any->dbname);
	assert_ptr_equal(any, conf->fallback);
	assert_string_equal(database(conf, "a")->hosts[0], "i");
	conf_unref(conf);
}

static void
test_the_consoles_name_is_taken(void **state)
{
	(void)state;
	refused("[databases]\npgbouncer = host=x\npgsluice = host=x\n",
	    "t.ini:2: pgbouncer: this name is the console's\n"
	    "t.ini:3: pgsluice: this name is the console's");
}

static void
test_verify_full_uses_the_systems_authorities(void **state)
{
	struct conf *conf = load("[databases]\na = host=h\n"
	    "b = host=h sslmode=verify-full\n");

	(void)state;
	assert_null(database(conf, "a")->ssl_ca_file);
	assert_string_equal(database(conf, "b")->ssl_ca_file, "system");
	conf_unref(conf);
}

static void
test_users(void **state)
{
	struct conf *conf = load("[users]\n"
	    "u = pool_size=3 query_timeout=2s max_user_connections=4\n");
	const struct conf_user *u = conf_find_user(conf, SPAN("u"));

	(void)state;
	assert_non_null(u);
	assert_int_equal(u->pool_size, 3);
	assert_int_equal(u->query_timeout_us, 2000000);
	assert_int_equal(u->max_user_connections, 4);
	assert_int_equal(u->pool_mode, -1);
	assert_int_equal(u->reserve_pool_size, -1);
	assert_true(u->transaction_timeout_us == UINT64_MAX);
	assert_null(conf_find_user(conf, SPAN("v")));
	conf_unref(conf);
	refused("[users]\nu = pool_mode=x\n", "t.ini:2: u: pool_mode: "
	    "expected session, transaction or statement, not \"x\"");
}

/*
 * URLs
 */

static void
test_a_url_as_an_entry(void **state)
{
	struct conf *conf = load("[databases]\n"
	    "a = postgresql://joe:p%40ss@db.example.com:6000/app"
	    "?sslmode=require&application_name=x&connect_timeout=10"
	    "&schema=public&connection_limit=5&pgbouncer=true pool_size=4\n"
	    "b = postgres://h1:5433,h2:5433/?channel_binding=require\n"
	    "c = postgres:///?host=/run/postgresql\n");
	const struct conf_database *a = database(conf, "a"),
	    *b = database(conf, "b"), *c = database(conf, "c");

	(void)state;
	assert_string_equal(a->hosts[0], "db.example.com");
	assert_int_equal(a->port, 6000);
	assert_string_equal(a->dbname, "app");
	assert_string_equal(a->user, "joe");
	assert_string_equal(a->password, "p@ss");
	assert_int_equal(a->sslmode, CONF_SSL_REQUIRE);
	assert_string_equal(a->application_name, "x");
	assert_int_equal(a->pool_size, 4);
	assert_int_equal(b->host_count, 2);
	assert_string_equal(b->hosts[1], "h2");
	assert_int_equal(b->port, 5433);
	assert_int_equal(b->channel_binding, BINDING_REQUIRE);
	assert_string_equal(b->dbname, "b");
	assert_string_equal(c->hosts[0], "/run/postgresql");
	conf_unref(conf);
}

static void
test_what_a_url_cannot_say(void **state)
{
	(void)state;
	entry_refused("postgres://h/?options=-cx%3Dy", "options: pgsluice "
	    "cannot do this to a server; connect_query=... can set "
	    "parameters");
	entry_refused("postgres://h/?target_session_attrs=standby",
	    "target_session_attrs: pgsluice cannot do this to a server");
	entry_refused("postgres://h1:1,h2:2/", "port: all hosts of a "
	    "database have the same one here");
	entry_refused("postgres://h/?sslmode=no-verify", "sslmode: expected "
	    "disable, allow, prefer, require, verify-ca or verify-full");
	entry_refused("postgres://u:secret@h/?nonsense=1", "not a connection "
	    "string that libpq understands: invalid URI query parameter: "
	    "\"nonsense\"");
}

static void
test_errors_of_a_url_never_show_the_password(void **state)
{
	static const char *const urls[] = {
		"postgres://u:SECRET%zz@h/d", "postgres://u:SECRET@h:port/d",
		"postgres://u:SECRET@[::1/d", "postgres://u:a?SECRET=b@h/d",
		"postgres://u:SECRET", "postgres://u:a?SECRET@h/d",
		"postgres://u:SECRET/x?y@h/d", "postgres://u:SECRET@/d?host",
		"postgres://u:SECRET@h/d?sslmode=x",
		"postgres://u:SECRET@h/d?sslrootcert=/nonexistent",
		"host=h password=SEC RET SECRET", "postgres://[::1]SECRET",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
		struct buf why = { 0 };
		struct conf *conf = conf_from_url(urls[i],
		    ask_parse_conninfo, &why);

		buf_add(&why, "", 1);
		if (conf == NULL && strstr(why.at, "SECRET") != NULL)
			fail_msg("shown: %s", why.at);
		conf_unref(conf);
		buf_finish(&why);
	}
}

static void
test_a_url_as_the_whole_configuration(void **state)
{
	struct buf why = { 0 };
	struct conf *conf = conf_from_url(
	    "postgres://joe:secret@db.example.com/app?sslmode=verify-full",
	    ask_parse_conninfo, &why);
	const struct conf_database *db;

	(void)state;
	assert_non_null(conf);
	assert_string_equal(conf->o.listen_addr, "localhost");
	assert_int_equal(conf->o.listen_port, 6432);
	assert_int_equal(conf->o.pool_mode, POOL_TRANSACTION);
	assert_int_equal(conf->o.auth_type, AUTH_SCRAM);
	assert_string_equal(conf->o.admin_users, "joe");
	assert_string_equal(conf->url_user, "joe");
	assert_string_equal(conf->url_password, "secret");
	assert_null(conf->path);
	assert_null(conf->fallback);
	db = database(conf, "app");
	assert_string_equal(db->dbname, "app");
	assert_string_equal(db->user, "joe");
	assert_string_equal(db->password, "secret");
	assert_int_equal(db->pool_size, 20);
	assert_int_equal(db->sslmode, CONF_SSL_VERIFY_FULL);
	assert_string_equal(db->ssl_ca_file, "system");
	conf_unref(conf);

	/* libpq's rule: without a name it is the user's. */
	conf = conf_from_url("postgres://joe:secret@h", ask_parse_conninfo,
	    &why);
	assert_non_null(conf);
	assert_string_equal(database(conf, "joe")->dbname, "joe");
	conf_unref(conf);
	buf_finish(&why);
}

static void
test_a_url_must_say_who_clients_are(void **state)
{
	static const struct { const char *url, *why; } cases[] = {
		{ "postgres://h/d", "URL: user: the URL must name one, whom "
		    "clients log in as" },
		{ "postgres://u@h/d", "URL: password: the URL must have one, "
		    "for clients to prove that they know it" },
		{ "postgres://u:p@h/pgbouncer",
		    "URL: dbname: this name is the console's" },
		{ "mysql://u:p@h/d", "URL: expected key=value key=value ... "
		    "(a value with spaces goes into single quotes)" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buf why = { 0 };

		assert_null(conf_from_url(cases[i].url, ask_parse_conninfo,
		    &why));
		buf_add(&why, "", 1);
		assert_string_equal(why.at, cases[i].why);
		buf_finish(&why);
	}
}

/*
 * SET, RELOAD
 */

static void
test_set_makes_another_snapshot(void **state)
{
	struct conf *conf = load("[databases]\na = host=h\n"
	    "b = host=h pool_size=2 password=x\n* = host=any\n"
	    "[users]\nu = pool_size=5\n[pgsluice]\nauth_user = x\n");
	struct buf why = { 0 };
	struct conf *other = conf_with(conf, SPAN("default_pool_size"),
	    SPAN("33"), &why);

	(void)state;
	assert_non_null(other);
	assert_int_equal(conf->o.default_pool_size, 20);
	assert_int_equal(database(conf, "a")->pool_size, 20);
	assert_int_equal(other->o.default_pool_size, 33);
	assert_int_equal(database(other, "a")->pool_size, 33);
	assert_int_equal(database(other, "b")->pool_size, 2);
	assert_string_equal(database(other, "b")->password, "x");
	assert_string_equal(database(other, "a")->auth_user, "x");
	assert_int_equal(database(other, "zz")->pool_size, 33);
	assert_int_equal(conf_find_user(other, SPAN("u"))->pool_size, 5);
	conf_unref(conf);
	/* Back to nothing. */
	conf = conf_with(other, SPAN("auth_user"), SPAN(""), &why);
	assert_non_null(conf);
	assert_null(database(conf, "a")->auth_user);
	conf_unref(conf);
	conf_unref(other);
	buf_finish(&why);
}

static void
test_set_tells_what_it_cannot(void **state)
{
	static const struct { const char *name, *value, *why; } cases[] = {
		{ "listen_port", "1",
		    "listen_port: can be changed by a restart only" },
		{ "pool_mod", "x", "pool_mod: there is no such setting; did "
		    "you mean pool_mode?" },
		{ "peer_id", "0", "peer_id: a PgBouncer setting that pgsluice "
		    "does not have yet" },
		{ "pool_mode", "x", "pool_mode: expected session, transaction "
		    "or statement, not \"x\"" },
		{ "client_tls_sslmode", "require", "client_tls_sslmode: needs "
		    "client_tls_key_file and client_tls_cert_file" },
	};
	struct conf *conf = load("");

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buf why = { 0 };

		assert_null(conf_with(conf, span_of(cases[i].name),
		    span_of(cases[i].value), &why));
		buf_add(&why, "", 1);
		assert_string_equal(why.at, cases[i].why);
		buf_finish(&why);
	}
	conf_unref(conf);
}

static void
write_file(const char *dir, const char *name, const char *text)
{
	char path[300];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	fclose(file);
}

static void
test_set_is_not_to_blame_for_what_was_broken_before(void **state)
{
	char dir[] = "/tmp/test_conf.XXXXXX", path[300], text[400];
	struct buf why = { 0 };
	struct conf *conf, *other;

	(void)state;
	assert_non_null(mkdtemp(dir));
	write_file(dir, "ca.pem", "x");
	snprintf(path, sizeof(path), "%s/ca.pem", dir);
	snprintf(text, sizeof(text), "[pgsluice]\nclient_tls_ca_file = %s\n",
	    path);
	conf = load(text);
	unlink(path);
	rmdir(dir);
	other = conf_with(conf, SPAN("verbose"), SPAN("2"), &why);
	assert_non_null(other);
	conf_unref(other);
	other = conf_with(conf, SPAN("auth_type"), SPAN("hba"), &why);
	assert_null(other);
	conf_unref(conf);
	buf_finish(&why);
}

static void
on_restart_needed(void *arg, const char *name)
{
	struct buf *names = arg;

	buf_printf(names, "%s,", name);
}

static void
test_a_reload_knows_what_needs_a_restart(void **state)
{
	struct conf *was = load("[pgsluice]\nlisten_port=1\nverbose=1\n");
	struct conf *is = load("[pgsluice]\nlisten_port=2\nverbose=2\n"
	    "listen_addr=127.0.0.1\n");
	struct buf names = { 0 };

	(void)state;
	conf_each_restart_needed(was, is, on_restart_needed, &names);
	buf_add(&names, "", 1);
	assert_string_equal(names.at, "listen_addr,listen_port,");
	buf_finish(&names);
	conf_unref(was);
	conf_unref(is);
}

static void
test_lists(void **state)
{
	(void)state;
	assert_true(conf_list_has("a, b ,c", SPAN("b")));
	assert_true(conf_list_has("a", SPAN("a")));
	assert_false(conf_list_has("ab, c", SPAN("a")));
	assert_false(conf_list_has("", SPAN("")));
	assert_false(conf_list_has("a,,b", SPAN("")));
}

/*
 * Files
 */

static void
test_include_keeps_place_and_line(void **state)
{
	char dir[] = "/tmp/test_conf.XXXXXX", path[300], text[700];
	char expected[1500];
	struct buf why = { 0 };
	struct conf *conf;

	(void)state;
	assert_non_null(mkdtemp(dir));
	write_file(dir, "b.ini", "listen_port = 7\n[databases]\nx = host=y");
	snprintf(text, sizeof(text), "[pgsluice]\n  %%include  %s/b.ini\n"
	    "z = host=after\n[pgsluice]\nverbose = 2\n", dir);
	write_file(dir, "a.ini", text);
	snprintf(path, sizeof(path), "%s/a.ini", dir);
	conf = conf_load(path, ask_parse_conninfo, &why);
	if (conf == NULL)
		fail_msg("refused: %.*s", (int)why.len, why.at);
	assert_int_equal(conf->o.listen_port, 7);
	assert_int_equal(conf->o.verbose, 2);
	assert_string_equal(database(conf, "x")->hosts[0], "y");
	assert_string_equal(database(conf, "z")->hosts[0], "after");
	assert_string_equal(conf->path, path);
	assert_string_equal(conf->o.conffile, path);
	conf_unref(conf);

	write_file(dir, "b.ini", "\nlisten_port = x\n");
	snprintf(text, sizeof(text), "[pgsluice]\n%%include %s/b.ini\n"
	    "%%include %s/none.ini\n%%include\nverbose = x\n", dir, dir);
	write_file(dir, "a.ini", text);
	assert_null(conf_load(path, ask_parse_conninfo, &why));
	buf_add(&why, "", 1);
	snprintf(expected, sizeof(expected),
	    "%s/b.ini:2: listen_port: expected a whole number from 1 to "
	    "65535, not \"x\"\n"
	    "%s/a.ini:3: %%include %s/none.ini: No such file or directory\n"
	    "%s/a.ini:4: %%include: which file?\n"
	    "%s/a.ini:5: verbose: expected a whole number from 0 to 3, not "
	    "\"x\"", dir, dir, dir, dir, dir);
	assert_string_equal(why.at, expected);
	buf_finish(&why);

	write_file(dir, "a.ini", "");
	snprintf(text, sizeof(text), "%%include %s/a.ini\n", dir);
	write_file(dir, "a.ini", text);
	assert_null(conf_load(path, ask_parse_conninfo, &why));
	buf_add(&why, "", 1);
	snprintf(expected, sizeof(expected), "%s/a.ini:1: %%include: too "
	    "deep (does the file include itself?)", dir);
	assert_string_equal(why.at, expected);
	buf_finish(&why);

	unlink(path);
	snprintf(path, sizeof(path), "%s/b.ini", dir);
	unlink(path);
	rmdir(dir);
}

/* Longer than a line of inih's. */
#define ALPHABET "abcdefghijklmnopqrstuvwxyz "
#define LONG_QUERY ALPHABET ALPHABET ALPHABET ALPHABET ALPHABET ALPHABET \
	ALPHABET ALPHABET ALPHABET "."

static const char whole_file[] =
    "[databases]\n"
    "a = host=h1,h2 password='x y' connect_query='select 1'\n"
    "b = postgres://u:p@h/d\n"
    "* = host=z\n"
    "[users]\nu = pool_size=3\n"
    "[pgsluice]\nlisten_addr = *\nauth_file = /x\nadmin_users = a,b\n"
    "server_reset_query = " LONG_QUERY "\n";

/* Whatever cannot be allocated: refused, or there in full. */
static void
test_no_allocation_failure_gets_through(void **state)
{
	unsigned failures = 0;
	bool ok = false;

	(void)state;
	for (uint64_t nth = 1; nth <= 800; nth++) {
		struct buf why = { 0 };
		struct conf *conf, *other = NULL;

		mem_fail_nth(nth);
		conf = conf_load_text("t.ini", SPAN(whole_file),
		    ask_parse_conninfo, &why);
		if (conf != NULL)
			other = conf_with(conf, SPAN("verbose"), SPAN("1"),
			    &why);
		mem_fail_nth(0);
		for (struct conf *made = conf; made != NULL;
		    made = made == conf ? other : NULL) {
			assert_int_equal(made->databases.count, 2);
			assert_int_equal(made->users.count, 1);
			assert_non_null(made->fallback);
			assert_string_equal(database(made, "a")->password,
			    "x y");
			assert_string_equal(database(made, "b")->user, "u");
			assert_string_equal(made->o.admin_users, "a,b");
			assert_string_equal(made->o.server_reset_query,
			    LONG_QUERY);
		}
		ok = conf != NULL && other != NULL;
		failures += !ok;
		conf_unref(conf);
		conf_unref(other);
		buf_finish(&why);
	}
	assert_true(ok);
	assert_true(failures > 100);
}

static void
test_a_command_is_looked_at_when_it_is_set(void **state)
{
	struct {
		char *command;
	} object = { 0 };
	const struct conf_field field = {
		.name = "command", .type = CONF_COMMAND,
	};
	struct buf why = { 0 };

	(void)state;
	assert_true(conf_field_set(&field, &object, SPAN(""), &why));
	assert_string_equal(object.command, "");
	assert_true(conf_field_set(&field, &object, SPAN("a 'b c'"), &why));
	assert_string_equal(object.command, "a 'b c'");
	assert_false(conf_field_set(&field, &object, SPAN("a 'b"), &why));
	assert_true(span_is(buf_span(&why), "a ' without its end"));
	assert_string_equal(object.command, "a 'b c'");
	conf_field_finish(&field, &object);
	buf_finish(&why);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty_file_is_all_defaults),
		cmocka_unit_test(
		    test_both_names_of_the_section_and_indentation),
		cmocka_unit_test(test_later_lines_win),
		cmocka_unit_test(
		    test_values_keep_semicolons_hashes_and_quotes),
		cmocka_unit_test(test_long_values_come_through_whole),
		cmocka_unit_test(test_names_in_double_quotes_hold_anything),
		cmocka_unit_test(test_lines_that_are_no_settings_are_refused),
		cmocka_unit_test(test_unknown_sections_are_told_once),
		cmocka_unit_test(test_every_error_is_told_with_its_line),
		cmocka_unit_test(
		    test_what_is_not_there_yet_is_refused_by_name),
		cmocka_unit_test(test_options_that_need_one_another),
		cmocka_unit_test(test_files_that_are_named_must_be_readable),
		cmocka_unit_test(test_a_file_that_cannot_be_opened),
		cmocka_unit_test(
		    test_every_default_is_one_the_user_could_write),
		cmocka_unit_test(test_values_print_as_pgbouncer_shows_them),
		cmocka_unit_test(test_show_config_has_values_and_defaults),
		cmocka_unit_test(test_every_option_can_be_set_in_a_file),
		cmocka_unit_test(test_the_settings_page_has_every_option),
		cmocka_unit_test(
		    test_a_database_takes_the_options_where_it_says_nothing),
		cmocka_unit_test(test_quoting_in_an_entry),
		cmocka_unit_test(test_several_hosts),
		cmocka_unit_test(test_the_fallback_has_no_name_of_its_own),
		cmocka_unit_test(test_the_consoles_name_is_taken),
		cmocka_unit_test(
		    test_verify_full_uses_the_systems_authorities),
		cmocka_unit_test(test_users),
		cmocka_unit_test(test_a_url_as_an_entry),
		cmocka_unit_test(test_what_a_url_cannot_say),
		cmocka_unit_test(
		    test_errors_of_a_url_never_show_the_password),
		cmocka_unit_test(test_a_url_as_the_whole_configuration),
		cmocka_unit_test(test_a_url_must_say_who_clients_are),
		cmocka_unit_test(test_set_makes_another_snapshot),
		cmocka_unit_test(test_set_tells_what_it_cannot),
		cmocka_unit_test(
		    test_set_is_not_to_blame_for_what_was_broken_before),
		cmocka_unit_test(test_a_reload_knows_what_needs_a_restart),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_include_keeps_place_and_line),
		cmocka_unit_test(test_a_command_is_looked_at_when_it_is_set),
		cmocka_unit_test(test_no_allocation_failure_gets_through),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
