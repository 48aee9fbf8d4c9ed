/*
 * SHOW: finds the table, has its rows gathered, sends it.
 *
 *   SHOW POOLS -> table of show.def -> gather: collect() on every worker
 *                                   -> compose() here -> T D D D ... C Z
 *
 * A table that needs nothing of the workers is answered at once. HELP is no
 * table but a notice, as psql users expect it; and some parameters can be
 * shown because drivers ask for them as soon as they are connected.
 */
#include "admin/show.h"

#include "admin/answer.h"
#include "admin/driver.h"
#include "base/check.h"
#include "session/worker.h"
#include "wire/body.h"

/* The columns of each table ... */
#define TABLE(name, role, collect, compose) \
	static const struct msg_column columns_##name[] = {
#define TEXT(name) { #name, OID_TEXT },
#define INT4(name) { #name, OID_INT4 },
#define INT8(name) { #name, OID_INT8 },
#define END };
#include "admin/show.def"
#undef TABLE
#undef TEXT
#undef INT4
#undef INT8
#undef END

/* ... and the tables. */
static const struct show_table tables[] = {
#define TABLE(name, role, collect, compose) { #name, role, columns_##name, \
	sizeof(columns_##name) / sizeof(columns_##name[0]), collect, compose },
#define TEXT(name)
#define INT4(name)
#define INT8(name)
#define END
#include "admin/show.def"
#undef TABLE
#undef TEXT
#undef INT4
#undef INT8
#undef END
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct show_table *
show_find(struct span name)
{
	for (size_t i = 0; i < COUNT(tables); i++)
		if (span_is_case(name, tables[i].name))
			return &tables[i];
	return NULL;
}

/*
 * Tables.
 */

static struct rows
rows_of(const struct show_table *table, struct buf *out)
{
	return (struct rows){
		.out = out, .columns = table->columns,
		.count = table->column_count,
	};
}

/* The whole answer; `gather` NULL: the table needs none. */
static void
show_answer(struct client *client, const struct show_table *table,
    const struct gather *gather)
{
	struct buf out = { 0 };
	struct rows rows = rows_of(table, &out);
	struct show show = {
		.worker = client->worker, .gather = gather, .rows = &rows,
	};

	msg_row_description(&out, table->columns, table->column_count);
	if (table->compose != NULL)
		table->compose(&show);
	else
		for (unsigned i = 0; i < gather->part_count; i++)
			buf_add_span(&out, buf_span(&gather->part[i].out));
	msg_command_complete(&out, "SHOW");
	answer_messages(client, &out);
	buf_finish(&out);
}

static void
show_visit(struct worker *worker, struct gather_part *part)
{
	const struct show_table *table = part->gather->table;
	struct rows rows = rows_of(table, &part->out);

	table->collect(worker, &rows);
}

static void
show_gathered(struct client *client, struct gather *gather)
{
	if (client == NULL)
		return;
	if (gather_has_failed(gather))
		answer_no_memory(client);
	else
		show_answer(client, gather->table, gather);
}

static void
show_table_run(struct client *client, const struct show_table *table)
{
	struct gather *gather;

	if (!role_allows(table->role, client)) {
		answer_error(client, "42501", "admin access needed");
		return;
	}
	if (table->collect == NULL) {
		show_answer(client, table, NULL);
		return;
	}
	gather = gather_create(client);
	if (gather == NULL) {
		answer_no_memory(client);
		return;
	}
	gather->visit = show_visit;
	gather->done = show_gathered;
	gather->table = table;
	gather_start(gather);
}

/*
 * What is no table.
 */

static void
show_help(struct client *client)
{
	static const char *const usages[] = {
#define X(name, role, shape, handler, usage) usage,
#include "admin/commands.def"
#undef X
	};
	struct buf lines = { 0 }, out = { 0 };

	buf_add_text(&lines, "\n\tSHOW HELP");
	for (size_t i = 0; i < COUNT(tables); i++)
		buf_printf(&lines, "|%s", tables[i].name);
	for (size_t i = 0; i < COUNT(usages); i++)
		if (usages[i] != NULL)
			buf_printf(&lines, "\n\t%s", usages[i]);
	buf_add(&lines, "\n", 2);	/* with its NUL */
	if (!lines.failed) {
		const struct msg_error notice = {
			.severity = "NOTICE", .sqlstate = "00000",
			.message = "Console usage", .detail = lines.at,
		};
		msg_notice(&out, &notice);
	}
	out.failed = out.failed || lines.failed;
	msg_command_complete(&out, "SHOW");
	answer_messages(client, &out);
	buf_finish(&lines);
	buf_finish(&out);
}

static void
show_parameter(struct client *client, const struct msg_column *column,
    const char *text)
{
	const struct span value = span_of(text);
	struct buf out = { 0 };

	msg_row_description(&out, column, 1);
	msg_data_row(&out, &value, 1);
	msg_command_complete(&out, "SHOW");
	answer_messages(client, &out);
	buf_finish(&out);
}

const struct msg_column *
show_columns(const struct command *command, uint16_t *ret_count)
{
	const struct show_table *table = show_find(command->arg);
	const struct msg_column *column = NULL;

	if (command->verb != COMMAND_SHOW && command->verb != COMMAND_SELECT)
		return NULL;
	if (table != NULL) {
		*ret_count = table->column_count;
		return table->columns;
	}
	*ret_count = 1;
	driver_parameter(command->arg, &column);
	return column;
}

void
show_run(struct client *client, const struct command *command)
{
	const struct show_table *table = show_find(command->arg);
	const struct msg_column *column;
	const char *value = driver_parameter(command->arg, &column);
	struct buf text = { 0 };

	if (table != NULL) {
		show_table_run(client, table);
	} else if (value != NULL) {
		show_parameter(client, column, value);
	} else if (span_is_case(command->arg, "help")) {
		show_help(client);
	} else if (span_is_case(command->arg, "fds")) {
		answer_error(client, "0A000", "SHOW FDS is not supported: "
		    "sockets are not handed over to another process");
	} else {
		buf_printf(&text, "%s %.*s", command_name(command->verb),
		    SPAN_ARG(command->arg));
		answer_no_command(client, buf_span(&text));
	}
	buf_finish(&text);
}
