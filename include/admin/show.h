/* SHOW: the tables of show.def and the functions that fill them. */
#ifndef ADMIN_SHOW_H
#define ADMIN_SHOW_H

#include "admin/gather.h"
#include "admin/role.h"
#include "admin/rows.h"

struct command;
struct server;
struct worker;

/* What a table's functions work with. */
struct show {
	struct worker *worker;		/* whose thread this is */
	const struct gather *gather;	/* compose: notes of the workers; */
					/* NULL = there is no collect */
	struct rows *rows;
};

struct show_table {
	const char *name;
	enum role role;
	const struct msg_column *columns;
	uint16_t column_count;
	/* See show.def. Notes go to rows->out. */
	void (*collect)(struct worker *worker, struct rows *rows);
	void (*compose)(struct show *show);
};

/* The columns of what this command shows; NULL: it shows none. */
const struct msg_column *show_columns(const struct command *command,
    uint16_t *ret_count);

/* gate.c: what holds all databases at once (SHOW STATE). */
enum gate {
	GATE_OPEN,
	GATE_PAUSED,			/* by PAUSE, KILL or SIGUSR1 */
	GATE_SUSPENDED,
};
enum gate gate_state(void);
/* Is this server to be closed as soon as it is free? */
bool gate_is_outdated(const struct server *server);
/* "session", "transaction", "statement" */
const char *pool_mode_shown(int mode);

/* show_sessions.c */
/* Does it idle for so long that it is tried before it is lent? */
bool server_is_used(const struct server *server);
void collect_clients(struct worker *worker, struct rows *rows);
void collect_pins(struct worker *worker, struct rows *rows);
void collect_listeners(struct worker *worker, struct rows *rows);
void collect_servers(struct worker *worker, struct rows *rows);
void collect_sockets(struct worker *worker, struct rows *rows);
void collect_active_sockets(struct worker *worker, struct rows *rows);
/* show_pools.c */
void collect_pools(struct worker *worker, struct rows *rows);
void show_pools(struct show *show);
void collect_lists(struct worker *worker, struct rows *rows);
void show_lists(struct show *show);
/* show_databases.c */
void show_databases(struct show *show);
void show_users(struct show *show);
uint64_t count_databases(const struct worker *worker);
uint64_t count_users(const struct worker *worker);
/* show_stats.c */
void show_stats(struct show *show);
void show_stats_totals(struct show *show);
void show_stats_averages(struct show *show);
void show_totals(struct show *show);
/* migrations.c */
void show_migrations(struct show *show);

/* show_process.c */
void show_mem(struct show *show);
void show_state(struct show *show);
void show_config(struct show *show);
void show_dns_hosts(struct show *show);
/* For what there is none of. */
void show_nothing(struct show *show);
void show_version(struct show *show);

#endif
