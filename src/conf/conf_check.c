/*
 * What must hold beyond each option's own range: words of lists, files that
 * must be there, and options that need one another. Better told at start
 * and at RELOAD than found out by the first client.
 */
#include "conf/conf_check.h"

#include <string.h>

#include "base/buf.h"
#include "base/span.h"
#include "conf/conf_database.h"

struct checking {
	const struct conf_options *o;
	void (*failed)(void *arg, const char *name, const char *text);
	void *arg;
};

static void
fail(const struct checking *c, const char *name, const char *text)
{
	c->failed(c->arg, name, text);
}

static bool
is_one_of(struct span word, const char *const *words)
{
	for (; *words != NULL; words++)
		if (span_is_case(word, *words))
			return true;
	return false;
}

static void
check_syslog_facility(const struct checking *c)
{
	static const char *const facilities[] = {
		"auth", "authpriv", "daemon", "user", "local0", "local1",
		"local2", "local3", "local4", "local5", "local6", "local7",
		NULL,
	};

	if (!is_one_of(span_of(c->o->syslog_facility), facilities))
		fail(c, "syslog_facility", "expected auth, authpriv, daemon, "
		    "user or local0 ... local7");
}

static void
check_sockets(const struct checking *c)
{
	const char *dir = c->o->unix_socket_dir;

	if (dir[0] != '\0' && dir[0] != '/' && dir[0] != '@')
		fail(c, "unix_socket_dir",
		    "expected an absolute path, @name or nothing");
	else if (strcmp(dir, "@") == 0)
		fail(c, "unix_socket_dir", "the name behind @ is missing");
	if (dir[0] == '\0' && c->o->listen_addr[0] == '\0')
		fail(c, "listen_addr", "nothing to listen on: this and "
		    "unix_socket_dir are both empty");
}

static void
check_file(const struct checking *c, const char *name, const char *path)
{
	struct buf why = { 0 };

	if (path[0] == '\0' || conf_file_is_readable(path, &why))
		return;
	buf_add(&why, "", 1);
	fail(c, name, why.failed ? "cannot be read" : why.at);
	buf_finish(&why);
}

/* PgBouncer puts colons or commas between them. */
static void
check_protocols(const struct checking *c, const char *name, const char *list)
{
	static const char *const words[] = {
		"secure", "all", "legacy", "tlsv1.0", "tlsv1.1", "tlsv1.2",
		"tlsv1.3", NULL,
	};
	struct span rest = span_of(list), part, word;
	char colon = strchr(list, ':') != NULL ? ':' : ',';
	bool ok = rest.len > 0;

	while (ok && span_next(&rest, colon, &part)) {
		word = part;
		if (word.len > 0 && (word.at[0] == '!' || word.at[0] == '-')) {
			word.at++;
			word.len--;
		}
		ok = is_one_of(word, words);
	}
	if (!ok)
		fail(c, name, "expected secure, all or a comma list of "
		    "tlsv1.0, tlsv1.1, tlsv1.2, tlsv1.3");
}

static void
check_client_tls(const struct checking *c)
{
	const struct conf_options *o = c->o;
	static const char *const dheparams[] = {
		"auto", "none", "legacy", NULL,
	};

	check_file(c, "client_tls_key_file", o->client_tls_key_file);
	check_file(c, "client_tls_cert_file", o->client_tls_cert_file);
	check_file(c, "client_tls_ca_file", o->client_tls_ca_file);
	check_protocols(c, "client_tls_protocols", o->client_tls_protocols);
	if (!is_one_of(span_of(o->client_tls_dheparams), dheparams))
		fail(c, "client_tls_dheparams", "expected auto, none or "
		    "legacy");
	if (o->client_tls_sslmode == CONF_SSL_DISABLE)
		return;
	if (o->client_tls_key_file[0] == '\0' ||
	    o->client_tls_cert_file[0] == '\0')
		fail(c, "client_tls_sslmode", "needs client_tls_key_file and "
		    "client_tls_cert_file");
	if (o->client_tls_sslmode >= CONF_SSL_VERIFY_CA &&
	    o->client_tls_ca_file[0] == '\0')
		fail(c, "client_tls_sslmode", "to verify clients' "
		    "certificates it needs client_tls_ca_file");
}

static void
check_server_tls(const struct checking *c)
{
	const struct conf_options *o = c->o;

	if (strcmp(o->server_tls_ca_file, "system") != 0)
		check_file(c, "server_tls_ca_file", o->server_tls_ca_file);
	check_file(c, "server_tls_key_file", o->server_tls_key_file);
	check_file(c, "server_tls_cert_file", o->server_tls_cert_file);
	check_protocols(c, "server_tls_protocols", o->server_tls_protocols);
	if ((o->server_tls_key_file[0] == '\0') !=
	    (o->server_tls_cert_file[0] == '\0'))
		fail(c, "server_tls_cert_file", "a certificate and "
		    "server_tls_key_file need one another");
	/* Any host of any certificate authority would pass. */
	if (o->server_tls_sslmode == CONF_SSL_VERIFY_CA &&
	    (o->server_tls_ca_file[0] == '\0' ||
	    strcmp(o->server_tls_ca_file, "system") == 0))
		fail(c, "server_tls_sslmode", "verify-ca needs a file in "
		    "server_tls_ca_file");
}

static void
check_auth(const struct checking *c)
{
	const struct conf_options *o = c->o;

	if (o->auth_type == AUTH_HBA && o->auth_hba_file[0] == '\0')
		fail(c, "auth_type", "hba needs auth_hba_file");
	if (o->auth_type == AUTH_CERT &&
	    o->client_tls_sslmode < CONF_SSL_VERIFY_CA)
		fail(c, "auth_type", "cert needs client_tls_sslmode "
		    "verify-full");
	if (o->auth_user[0] != '\0' && o->auth_query[0] == '\0')
		fail(c, "auth_query", "auth_user needs a query");
}

void
conf_check_options(const struct conf_options *options,
    void (*failed)(void *arg, const char *name, const char *text), void *arg)
{
	struct checking checking = { options, failed, arg };

	check_syslog_facility(&checking);
	check_sockets(&checking);
	check_client_tls(&checking);
	check_server_tls(&checking);
	check_auth(&checking);
}
