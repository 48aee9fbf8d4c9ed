/*
 * Dialogues in the words of relay_rig.h: what one side says, what the other
 * gets of it, and what is owed then. Behind cmocka.h.
 */
#ifndef TEST_RELAY_PLAY_H
#define TEST_RELAY_PLAY_H

#include "relay_rig.h"

struct step {
	enum { CLIENT, SERVER } who;
	const char *says;
	const char *to_server, *to_client;
	const char *owed;
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define PLAY(steps) play(steps, COUNT(steps))

static inline void
play(const struct step *steps, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct step *step = &steps[i];

		if (step->who == CLIENT)
			client_says(step->says);
		else
			server_says(step->says);
		const char *to_server = server_got();
		const char *to_client = client_got();
		if (strcmp(to_server, step->to_server) != 0 ||
		    strcmp(to_client, step->to_client) != 0 ||
		    strcmp(rig_owed(), step->owed) != 0)
			fail_msg("step %zu, %s says \"%s\": server gets "
			    "\"%s\", client gets \"%s\", owed \"%s\"", i + 1,
			    step->who == CLIENT ? "client" : "server",
			    step->says, to_server, to_client, rig_owed());
	}
}

static inline void
is_parted(void)
{
	assert_int_equal(rig_client()->state, CLIENT_IDLE);
	assert_int_equal(rig_server()->state, SERVER_IDLE);
}

#endif
