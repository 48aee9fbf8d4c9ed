/*
 * Setups: what a configuration amounts to at run time.
 *
 * All or nothing: every file that the configuration names is read, every TLS
 * context made, and any error refuses the whole, with the texts of all that
 * was found wrong. A running process keeps its old setup then.
 */
#include "session/setup.h"

#include <stdio.h>
#include <string.h>

#include "auth/hba.h"
#include "auth/users.h"
#include "base/check.h"
#include "base/mem.h"
#include "conf/conf.h"
#include "net/tls.h"

_Static_assert((int)CONF_SSL_DISABLE == (int)TLS_DISABLE &&
    (int)CONF_SSL_VERIFY_FULL == (int)TLS_VERIFY_FULL,
    "conf/ and net/ name the sslmodes in the same order");

/* The context for servers of all entries with the same settings. */
struct setup_tls {
	struct list node;
	int sslmode;
	char *ca, *cert, *key;
	struct tls_ctx *ctx;
};

MEM_TYPE(setup_type, setup);
MEM_TYPE(setup_tls_type, setup_tls);

static const char *
or_empty(const char *text)
{
	return text != NULL ? text : "";
}

static struct setup_tls *
server_tls_find(struct setup *setup, const struct conf_database *db)
{
	list_each(node, &setup->server_tls) {
		struct setup_tls *tls =
		    container_of(node, struct setup_tls, node);
		if (tls->sslmode == db->sslmode &&
		    strcmp(tls->ca, or_empty(db->ssl_ca_file)) == 0 &&
		    strcmp(tls->cert, or_empty(db->ssl_cert_file)) == 0 &&
		    strcmp(tls->key, or_empty(db->ssl_key_file)) == 0)
			return tls;
	}
	return NULL;
}

struct tls_ctx *
setup_server_tls(struct setup *setup, const struct conf_database *db)
{
	const struct setup_tls *tls = server_tls_find(setup, db);

	return tls == NULL ? NULL : tls->ctx;
}

static void
setup_tls_destroy(struct setup_tls *tls)
{
	tls_ctx_unref(tls->ctx);
	mem_free(tls->ca);
	mem_free(tls->cert);
	mem_free(tls->key);
	mem_delete(&setup_tls_type, tls);
}

static bool
setup_add_server_tls(struct setup *setup, const struct conf_database *db,
    struct buf *ret_why)
{
	const struct conf_options *o = &setup->conf->o;
	struct tls_settings settings = {
		.mode = (enum tls_mode)db->sslmode,
		.ca_file = db->ssl_ca_file, .cert_file = db->ssl_cert_file,
		.key_file = db->ssl_key_file,
		.protocols = o->server_tls_protocols,
		.ciphers = o->server_tls_ciphers,
		.ciphersuites = o->server_tls13_ciphers,
	};
	struct setup_tls *tls;
	char why[512];

	if (db->sslmode == CONF_SSL_DISABLE || server_tls_find(setup, db))
		return true;
	tls = mem_new(&setup_tls_type);
	if (tls == NULL)
		return false;
	tls->sslmode = db->sslmode;
	tls->ca = mem_strdup(or_empty(db->ssl_ca_file));
	tls->cert = mem_strdup(or_empty(db->ssl_cert_file));
	tls->key = mem_strdup(or_empty(db->ssl_key_file));
	tls->ctx = tls_ctx_create_client(&settings, why, sizeof(why));
	if (tls->ctx == NULL || tls->ca == NULL || tls->cert == NULL ||
	    tls->key == NULL) {
		buf_printf(ret_why, "TLS to servers of \"%s\": %s\n",
		    db->name, why);
		setup_tls_destroy(tls);
		return false;
	}
	list_append(&setup->server_tls, &tls->node);
	return true;
}

static bool
setup_make_tls(struct setup *setup, struct buf *ret_why)
{
	const struct conf_options *o = &setup->conf->o;
	struct tls_settings settings = {
		.mode = (enum tls_mode)o->client_tls_sslmode,
		.key_file = o->client_tls_key_file,
		.cert_file = o->client_tls_cert_file,
		.ca_file = o->client_tls_ca_file,
		.protocols = o->client_tls_protocols,
		.ciphers = o->client_tls_ciphers,
		.ciphersuites = o->client_tls13_ciphers,
		.ecdh_curve = o->client_tls_ecdhcurve,
		.dh_params = o->client_tls_dheparams,
	};
	struct hash_node *node = NULL;
	char why[512];
	bool good = true;

	if (o->client_tls_sslmode != CONF_SSL_DISABLE) {
		setup->client_tls = tls_ctx_create_server(&settings, why,
		    sizeof(why));
		if (setup->client_tls == NULL) {
			buf_printf(ret_why, "TLS to clients: %s\n", why);
			good = false;
		}
	}
	while ((node = hash_walk(&setup->conf->databases, node)) != NULL)
		good = setup_add_server_tls(setup, container_of(node,
		    struct conf_database, by_name), ret_why) && good;
	if (setup->conf->fallback != NULL)
		good = setup_add_server_tls(setup, setup->conf->fallback,
		    ret_why) && good;
	return good;
}

static bool
setup_read_auth(struct setup *setup, struct buf *ret_why)
{
	const struct conf *conf = setup->conf;
	bool good = true;

	if (conf->o.auth_file[0] != '\0')
		setup->users = users_load(conf->o.auth_file, false, ret_why);
	else
		setup->users = users_create();
	if (setup->users == NULL)
		good = false;
	else if (conf->url_user != NULL && conf->url_password != NULL &&
	    !users_add(setup->users, span_of(conf->url_user),
	    span_of(conf->url_password)))
		good = false;
	if (conf->o.auth_type == AUTH_HBA) {
		setup->hba = hba_load(conf->o.auth_hba_file,
		    conf->o.auth_ident_file[0] != '\0' ?
		    conf->o.auth_ident_file : NULL, ret_why);
		good = good && setup->hba != NULL;
	}
	return good;
}

struct setup *
setup_create(struct conf *conf, struct buf *ret_why)
{
	struct setup *setup = mem_new(&setup_type);
	bool good;

	if (setup == NULL) {
		conf_unref(conf);
		return NULL;
	}
	setup->refs = 1;
	setup->conf = conf;
	list_init(&setup->server_tls);
	good = setup_read_auth(setup, ret_why);
	good = setup_make_tls(setup, ret_why) && good;
	if (good)
		return setup;
	setup_unref(setup);
	return NULL;
}

struct setup *
setup_ref(struct setup *setup)
{
	setup->refs++;
	return setup;
}

void
setup_unref(struct setup *setup)
{
	struct list *node;

	if (setup == NULL || --setup->refs > 0)
		return;
	while ((node = list_pop(&setup->server_tls)) != NULL)
		setup_tls_destroy(container_of(node, struct setup_tls, node));
	tls_ctx_unref(setup->client_tls);
	if (setup->hba != NULL)
		hba_unref(setup->hba);
	users_unref(setup->users);
	conf_unref(setup->conf);
	mem_delete(&setup_type, setup);
}
