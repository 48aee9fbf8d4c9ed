/* The quick look at a statement's text: is there nothing in it? */
#ifndef WIRE_SQLQUICK_H
#define WIRE_SQLQUICK_H

#include <stdbool.h>

/* True: no word that wire/sqlscan watches for stands between the two, quoted
 * or not. False: a closer look is needed. */
bool sqlquick_has_nothing(const char *begin, const char *end);

#endif
