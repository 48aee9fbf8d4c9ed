/*
 * What drivers send of their own accord.
 *
 * Before a monitor's own question arrives, its driver has asked for the
 * encoding, set application_name, begun a transaction. The console's session
 * is what its greeting says and nothing else, so a parameter can be set to
 * what it is already, and those that would not make a difference here to
 * anything. SQL is refused, with a word on how to do without.
 */
#include "admin/driver.h"

#include "admin/answer.h"
#include "admin/command.h"
#include "admin/rows.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A parameter with the other words that drivers have for the same value. */
static const struct {
	struct msg_column column;
	const char *value;
	const char *same;
} parameters[] = {
	{ { "client_encoding", OID_TEXT }, "UTF8", "utf-8,unicode" },
	{ { "datestyle", OID_TEXT }, "ISO", "ISO,MDY,DMY,YMD" },
	{ { "timezone", OID_TEXT }, "GMT", "UTC,Etc/UTC,Z,Europe/London" },
	{ { "standard_conforming_strings", OID_TEXT }, "on", "true,yes,1" },
	{ { "default_transaction_isolation", OID_TEXT }, "read committed", "" },
};

/* Taken, and nothing is done: no answer of ours would be another. */
static const char *const indifferent[] = {
	"application_name", "extra_float_digits", "bytea_output",
	"intervalstyle", "statement_timeout", "lock_timeout",
	"idle_in_transaction_session_timeout", "client_min_messages",
};

static const struct {
	const char *begins;
	const char *hint;
} hints[] = {
#define AUTOCOMMIT "There are no transactions here: use autocommit."
	{ "BEGIN", AUTOCOMMIT }, { "START ", AUTOCOMMIT },
	{ "COMMIT", AUTOCOMMIT }, { "ROLLBACK", AUTOCOMMIT },
	{ "END", AUTOCOMMIT }, { "ABORT", AUTOCOMMIT },
	{ "SAVEPOINT", AUTOCOMMIT },
#undef AUTOCOMMIT
#define SESSION "A session here has no state that could be reset."
	{ "DISCARD", SESSION }, { "RESET", SESSION },
	{ "DEALLOCATE", SESSION }, { "CLOSE", SESSION },
	{ "UNLISTEN", SESSION },
#undef SESSION
	{ "SELECT", "For a list of the databases: SHOW DATABASES." },
	{ "WITH", "For a list of the databases: SHOW DATABASES." },
};

const char *
driver_parameter(struct span name, const struct msg_column **ret_column)
{
	for (size_t i = 0; i < COUNT(parameters); i++)
		if (span_is_case(name, parameters[i].column.name)) {
			*ret_column = &parameters[i].column;
			return parameters[i].value;
		}
	return NULL;
}

/* "ISO, MDY": each word of it may stand for the value. */
static bool
is_same(struct span value, struct span known)
{
	struct span word, one;

	while (span_next(&value, ',', &word)) {
		struct span rest = known;
		bool found = false;
		while (!found && span_next(&rest, ',', &one))
			found = span_eq_case(word, one);
		if (!found)
			return false;
	}
	return true;
}

bool
driver_set(struct client *client, const struct command *command)
{
	for (size_t i = 0; i < COUNT(indifferent); i++)
		if (span_is_case(command->arg, indifferent[i])) {
			answer_done(client, "SET");
			return true;
		}
	for (size_t i = 0; i < COUNT(parameters); i++) {
		const char *value = parameters[i].value;
		if (!span_is_case(command->arg, parameters[i].column.name))
			continue;
		if (span_is_case(command->value, value) ||
		    is_same(command->value, span_of(parameters[i].same)))
			answer_done(client, "SET");
		else
			answer_error(client, "22023", "%s is %s on the "
			    "console, and cannot be changed",
			    parameters[i].column.name, value);
		return true;
	}
	return false;
}

const char *
driver_hint(struct span text)
{
	for (size_t i = 0; i < COUNT(hints); i++)
		if (span_starts_case(text, hints[i].begins))
			return hints[i].hint;
	return NULL;
}
