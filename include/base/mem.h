/* Memory: counted per type, poisoned when freed, failing on demand. */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A type of object. One static variable a type, made with MEM_TYPE(); it
 * registers itself at its first use, and SHOW MEM lists it.
 */
struct mem_type {
	const char *name;
	size_t size;			/* bytes an object */
	_Atomic uint64_t live;		/* objects in use */
	_Atomic uint64_t made;		/* objects ever made */
	_Atomic(struct mem_type *) next;
	atomic_flag listed;
};

#define MEM_TYPE(var, type) \
	static struct mem_type var = { .name = #type, \
	    .size = sizeof(struct type), .listed = ATOMIC_FLAG_INIT }

/* A zeroed object, or NULL when out of memory. */
void *mem_new(struct mem_type *type);
/*
 * Takes NULL. Always spoils the magic number; poisons the whole object when
 * built for debugging (no NDEBUG) or with a sanitizer.
 */
void mem_delete(struct mem_type *type, void *object);

/* Plain blocks. NULL means out of memory, never that len was 0; mem_free
 * takes NULL. */
void *mem_alloc(size_t len);
void *mem_zalloc(size_t len);
void *mem_realloc(void *block, size_t len);
void *mem_dup(const void *at, size_t len);
char *mem_strdup(const char *text);
/* len bytes and a NUL behind them. */
char *mem_strndup(const char *at, size_t len);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void mem_free(void *block);

/* Overwrite a secret; never optimised away. */
void mem_wipe(void *at, size_t len);

/* Tests: the nth allocation from now fails (1 = the next); 0 = none. */
void mem_fail_nth(uint64_t nth);

/* Calls back for every type that was ever used. */
void mem_each_type(void (*each)(const struct mem_type *, void *), void *arg);

#endif
