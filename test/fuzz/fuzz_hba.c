/*
 * Rules and ident maps: the text before the first NUL is the one, the text
 * behind it the other. Files are taken as a whole or refused with a reason,
 * and whatever the rules are, some answers must never come.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "auth/hba.h"
#include "fuzz.h"

/* The C library's expressions are the operator's to misuse, not a peer's:
 * repetitions of repetitions and back references may take it any time. */
static bool
is_for_us(struct span rules, struct span maps)
{
	size_t i;

	if (maps.len > 2000 || rules.len > 100000 ||
	    memmem(rules.at, rules.len, "@/", 2) != NULL)
		return false;
	for (i = 0; i < maps.len; i++)
		if (maps.at[i] == '{' || (maps.at[i] == '*' && i > 0 &&
		    strchr("*+?)", maps.at[i - 1]) != NULL) ||
		    (maps.at[i] == '\\' && i + 1 < maps.len &&
		    maps.at[i + 1] >= '2' && maps.at[i + 1] <= '9'))
			return false;
	return true;
}

static void
ask(const struct hba *hba, const struct sockaddr *address, bool over_tls,
    bool replication)
{
	struct hba_question question = { .address = address,
	    .over_tls = over_tls, .replication = replication,
	    .database = SPAN("app"), .user = SPAN("anna") };
	struct hba_answer one = { .line = 7 }, other;

	hba_match(hba, &question, &one);
	hba_match(hba, &question, &other);
	check(one.line == other.line && one.method == other.method &&
	    one.map == other.map);
	check(one.line != 0 || one.method == LOGIN_REJECT);
	check(one.method != LOGIN_PEER || address == NULL);
	check(one.method != LOGIN_CERT || (address != NULL && over_tls));
	check(one.method != LOGIN_ANY);
	check(one.map == NULL || one.method == LOGIN_PEER ||
	    one.method == LOGIN_CERT);
	if (one.map == NULL)
		return;
	hba_map_allows(hba, one.map, SPAN("anna"), SPAN("anna"));
	check(!hba_map_allows(hba, one.map, SPAN("anna\0b"), SPAN("anna")));
	check(!hba_map_allows(hba, one.map, SPAN_NONE, SPAN("anna")));
	check(!hba_map_allows(hba, one.map, SPAN("anna"), SPAN_NONE));
}

static void
ask_all(const struct hba *hba)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
	const struct sockaddr *addresses[] = { NULL,
	    (const struct sockaddr *)&in, (const struct sockaddr *)&in6 };
	int i;

	check(inet_pton(AF_INET, "10.1.2.3", &in.sin_addr) == 1);
	check(inet_pton(AF_INET6, "::1", &in6.sin6_addr) == 1);
	for (i = 0; i < 12; i++)
		ask(hba, addresses[i % 3], i / 3 % 2 != 0, i / 6 != 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint64_t began = fuzz_cpu_ms();
	char *copy = fuzz_copy((const char *)data, len);
	const char *nul = len != 0 ? memchr(copy, '\0', len) : NULL;
	struct span rules = { copy, len }, maps = SPAN_NONE;
	struct buf why = { 0 };
	struct hba *hba;

	if (nul != NULL) {
		rules.len = (size_t)(nul - copy);
		maps.at = nul + 1;
		maps.len = len - rules.len - 1;
	}
	if (is_for_us(rules, maps)) {
		/* A folder that is not there: no @file is. */
		hba = hba_parse(rules, "/nonexistent/hba", maps,
		    nul != NULL ? "/nonexistent/ident" : NULL, &why);
		check((hba == NULL) == (why.len != 0));
		if (hba != NULL)
			ask_all(hba);
		hba_unref(hba);
	}
	buf_finish(&why);
	free(copy);
	fuzz_check_time(began);
	return 0;
}
