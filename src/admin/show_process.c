/*
 * SHOW MEM, STATE, CONFIG, DNS_HOSTS, VERSION: what is the process's own; and
 * PEERS, PEER_POOLS, DNS_ZONES, of which there are none.
 */
#include "admin/show.h"

#include "admin/version.h"
#include "base/mem.h"
#include "conf/conf.h"
#include "net/dns.h"
#include "session/setup.h"
#include "session/worker.h"

static void
put_type(const struct mem_type *type, void *arg)
{
	struct rows *rows = arg;
	uint64_t live = type->live;

	row_begin(rows);
	row_text(rows, type->name);
	row_int(rows, type->size);
	row_int(rows, live);
	row_int(rows, 0);		/* free: nothing is kept in reserve */
	row_int(rows, live * type->size);
	row_end(rows);
}

void
show_mem(struct show *show)
{
	mem_each_type(put_type, show->rows);
}

static void
put_state(struct rows *rows, const char *key, bool value)
{
	row_begin(rows);
	row_text(rows, key);
	row_text(rows, value ? "yes" : "no");
	row_end(rows);
}

void
show_state(struct show *show)
{
	enum gate gate = gate_state();

	put_state(show->rows, "active", gate == GATE_OPEN);
	put_state(show->rows, "paused", gate == GATE_PAUSED);
	put_state(show->rows, "suspended", gate == GATE_SUSPENDED);
}

static void
put_option(void *arg, const char *name, const char *value, const char *def,
    bool changeable)
{
	struct rows *rows = arg;

	row_begin(rows);
	row_text(rows, name);
	row_text(rows, value);
	row_text(rows, def);
	row_text(rows, changeable ? "yes" : "no");
	row_end(rows);
}

void
show_config(struct show *show)
{
	conf_each_option(show->worker->setup->conf, put_option, show->rows);
}

static void
put_host(void *arg, const char *host, int64_t ttl_us,
    const struct dns_answer *answer)
{
	struct rows *rows = arg;
	struct buf list = { 0 };
	char text[128];

	for (unsigned i = 0; i < answer->count; i++) {
		address_print(&answer->address[i], text, sizeof(text), NULL);
		buf_printf(&list, "%s%s", i > 0 ? "," : "", text);
	}
	row_begin(rows);
	row_text(rows, host);
	row_int(rows, ttl_us > 0 ? (uint64_t)ttl_us / 1000000 : 0);
	row_span(rows, list.len > 0 ? buf_span(&list) : SPAN(""));
	row_end(rows);
	buf_finish(&list);
}

void
show_dns_hosts(struct show *show)
{
	dns_each(put_host, show->rows);
}

void
show_nothing(struct show *show)
{
	(void)show;
}

void
show_version(struct show *show)
{
	row_begin(show->rows);
	row_text(show->rows, "pgsluice " PGSLUICE_VERSION);
	row_end(show->rows);
}
