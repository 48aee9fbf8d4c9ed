/* Session state of transaction mode: what is carried, what pins. */
#ifndef SESSION_STATE_H
#define SESSION_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

struct buf;
struct client;
struct server;

/* What ties a client to its server; server->pins is a set of 1 << these. */
enum state_pin {
#define X(name, shown, effects, final, where) PIN_##name,
#include "session/pins.def"
#undef X
	STATE_PINS
};

/* A link begins: is it one that is audited (state_audit)? */
void state_begin(struct server *server);
/* A statement with these effects (wire/sqlscan.h) and this text goes to the
 * server now. */
void state_note(struct server *server, uint32_t effects, struct span sql);
/*
 * Is this statement about to ask for the value that a sequence gave last, and
 * has another client's statement moved one on since? Then the server must be
 * made to forget (DISCARD SEQUENCES) before it runs.
 */
bool state_must_forget(struct server *server, uint32_t effects);
/* The Bind of one, behind its names: a value may name a parameter. */
void state_note_bind(struct server *server, struct span body);
/*
 * Nothing is owed and no transaction is open: asks the server what became of
 * its session, if a statement may have changed it. True: it was asked, and
 * the link goes on until it has answered.
 */
bool state_probe(struct server *server);
/* Its client is at its login, and its parameters are there or on their way:
 * asks what the server makes of them. */
void state_ask_params(struct server *server);
/* Does what the client sees next hang on what its last statement has done,
 * and on our putting right what that may have reset? Then it must wait. */
bool state_must_wait(const struct server *server);
/* A row of that answer. False: not to be understood. */
bool state_row(struct server *server, struct span body);
/* The end of it: what the client carries, and whether it is pinned. */
void state_probed(struct server *server);
/* It was answered with an error. True: it is asked again, in another way. */
bool state_probe_failed(struct server *server, struct span sqlstate);
/* A pin that is not the probe's to find. */
void state_pin(struct server *server, enum state_pin pin);
void state_unpin(struct server *server, enum state_pin pin);
/* Has a client that leaves now left something that must be reset? */
bool state_is_unclean(const struct server *server);
/* Something that only the end of its process can undo? */
bool state_is_final(const struct server *server);
/* The whole session was reset, or is gone. */
void state_clear(struct server *server);
/* A ParameterStatus that puts back what was set: is it what the client's own
 * startup packet will put right again? Then it is told so, instead. */
bool state_hides(const struct server *server, struct span name,
    struct span value);
void state_put_back(struct server *server, struct span name);
/*
 * Would this statement tie one client too many to its server (max_pinned)?
 * The reason's name; NULL = no.
 */
const char *state_is_refused(const struct client *client, uint32_t effects);
/* Are there, or may there be, statements of PREPARE? Then DEALLOCATE is for
 * the server. NULL = no server. */
bool state_has_prepared(const struct server *server);
/* What ties its client to it, as far as is known: also what a statement has
 * just done and the answer to our question will confirm. */
uint32_t state_pins(const struct server *server);
#define STATE_PINS_TEXT 96
/* "temp_table,listen" */
const char *state_pins_text(uint32_t pins, char *text, size_t size);

#endif
