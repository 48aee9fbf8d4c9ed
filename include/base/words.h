/* A command line into its words, without a shell. */
#ifndef BASE_WORDS_H
#define BASE_WORDS_H

#include "base/buf.h"
#include "base/span.h"

/*
 * Blanks separate words. Inside '...' everything is as it stands; inside
 * "..." \" and \\ are the character behind the backslash; outside quotes any
 * character behind a backslash is itself. What a shell would take for more
 * than text (| & ; < > ( ) $ `) must be quoted, with '...' or a backslash: it
 * is refused rather than given to a command whose author hoped for a shell.
 *
 * Returns the words with a NULL behind them: one block, for mem_free(). NULL:
 * `why` has a fragment such as: a ' without its end.
 */
char **words_split(struct span text, struct buf *why);

#endif
