/* What must hold beyond each option's own range. */
#ifndef CONF_CONF_CHECK_H
#define CONF_CONF_CHECK_H

#include "conf/conf.h"

/* `failed` is called for each thing that does not: the option to blame, and
 * what is wrong with it. */
void conf_check_options(const struct conf_options *options,
    void (*failed)(void *arg, const char *name, const char *text), void *arg);

#endif
