/* What a configuration amounts to at run time: one immutable snapshot. */
#ifndef SESSION_SETUP_H
#define SESSION_SETUP_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/map.h"

struct conf;
struct conf_database;
struct hba;
struct tls_ctx;
struct users;

/*
 * The configuration and what was read and made because of it. A reload builds
 * a new one and mails it to every worker; sessions that started under the old
 * one keep their reference as long as they need it.
 */
struct setup {
	_Atomic unsigned refs;
	struct conf *conf;
	struct users *users;
	struct hba *hba;		/* NULL: auth_type decides */
	struct tls_ctx *client_tls;	/* NULL: client_tls_sslmode=disable */
	struct list server_tls;		/* one a distinct set of settings */
};

/* Takes over the reference to conf. NULL: texts in ret_why. */
struct setup *setup_create(struct conf *conf, struct buf *ret_why);
struct setup *setup_ref(struct setup *setup);
void setup_unref(struct setup *setup);
/* The TLS context for servers of this entry; NULL: sslmode is disable. */
struct tls_ctx *setup_server_tls(struct setup *setup,
    const struct conf_database *db);

#endif
