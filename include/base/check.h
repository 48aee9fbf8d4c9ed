/* Assertions that stay on in production. */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

/*
 * check(cond) is for our own bugs only: never for what a peer, an operator
 * or the network can cause. A failed check logs the condition and aborts:
 * a pooler that goes on with broken state hands bytes to strangers.
 */
#define check(cond) \
	((cond) ? (void)0 : check_failed(#cond, __FILE__, __LINE__, __func__))

/* Every object starts with `uint32_t magic`; a void * is checked on entry. */
#define check_magic(obj, value) \
	check((obj) != NULL && (obj)->magic == (value))

_Noreturn void check_failed(const char *cond, const char *file, int line,
    const char *func) __attribute__((cold));

#endif
