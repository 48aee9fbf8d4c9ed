/*
 * The only file that calls malloc.
 *
 * The C library's allocator with its caches per thread is as fast as any of
 * our own would be for objects that live as long as a connection does. What
 * we add is what it cannot know: how many objects of each type there are
 * (SHOW MEM, and tests that look for leaks), a freed object that nobody
 * mistakes for a live one, and an allocation that fails when a test says so.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

#if !defined(NDEBUG) || defined(__SANITIZE_ADDRESS__) || \
    defined(__SANITIZE_THREAD__)
#define MEM_POISON
#endif

#define MEM_POISON_BYTE	0xdb

/* Every type that was ever used; grows only. */
static _Atomic(struct mem_type *) mem_types;

/* Allocations to go until one fails, that one included; 0 = none will. */
static _Atomic uint64_t mem_fail_in;

static bool
mem_must_fail(void)
{
	uint64_t left = atomic_load_explicit(&mem_fail_in,
	    memory_order_relaxed);

	while (left != 0)
		if (atomic_compare_exchange_weak(&mem_fail_in, &left,
		    left - 1))
			return left == 1;
	return false;
}

static void
mem_list_type(struct mem_type *type)
{
	struct mem_type *first;

	if (atomic_flag_test_and_set(&type->listed))
		return;
	first = atomic_load(&mem_types);
	do {
		atomic_store(&type->next, first);
	} while (!atomic_compare_exchange_weak(&mem_types, &first, type));
}

void *
mem_new(struct mem_type *type)
{
	void *object;

	if (mem_must_fail())
		return NULL;
	object = calloc(1, type->size);
	if (object == NULL)
		return NULL;
	if (atomic_fetch_add_explicit(&type->made, 1,
	    memory_order_relaxed) == 0)
		mem_list_type(type);
	atomic_fetch_add_explicit(&type->live, 1, memory_order_relaxed);
	return object;
}

void
mem_delete(struct mem_type *type, void *object)
{
	uint64_t live;

	if (object == NULL)
		return;
	live = atomic_fetch_sub_explicit(&type->live, 1,
	    memory_order_relaxed);
	check(live > 0);
#ifdef MEM_POISON
	memset(object, MEM_POISON_BYTE, type->size);
#endif
	/* Through volatile, or the compiler drops a store to what is freed. */
	if (type->size >= sizeof(uint32_t))
		*(volatile uint32_t *)object = MEM_POISON_BYTE * 0x01010101u;
	free(object);
}

void
mem_each_type(void (*each)(const struct mem_type *, void *), void *arg)
{
	const struct mem_type *type;

	for (type = atomic_load(&mem_types); type != NULL;
	    type = atomic_load(&type->next))
		each(type, arg);
}

void *
mem_alloc(size_t len)
{
	return mem_must_fail() ? NULL : malloc(len != 0 ? len : 1);
}

void *
mem_zalloc(size_t len)
{
	return mem_must_fail() ? NULL : calloc(1, len != 0 ? len : 1);
}

void *
mem_realloc(void *block, size_t len)
{
	return mem_must_fail() ? NULL : realloc(block, len != 0 ? len : 1);
}

void
mem_free(void *block)
{
	free(block);
}

void *
mem_dup(const void *at, size_t len)
{
	void *copy = mem_alloc(len);

	if (copy != NULL && len != 0)
		memcpy(copy, at, len);
	return copy;
}

char *
mem_strdup(const char *text)
{
	return mem_dup(text, strlen(text) + 1);
}

char *
mem_strndup(const char *at, size_t len)
{
	char *copy;

	if (len == SIZE_MAX)
		return NULL;
	copy = mem_alloc(len + 1);
	if (copy == NULL)
		return NULL;
	if (len != 0)
		memcpy(copy, at, len);
	copy[len] = '\0';
	return copy;
}

char *
mem_printf(const char *fmt, ...)
{
	va_list args;
	char *text = NULL;
	int len;

	va_start(args, fmt);
	len = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (len >= 0)
		text = mem_alloc((size_t)len + 1);
	if (text == NULL)
		return NULL;
	va_start(args, fmt);
	vsnprintf(text, (size_t)len + 1, fmt, args);
	va_end(args);
	return text;
}

void
mem_wipe(void *at, size_t len)
{
	if (len != 0)
		explicit_bzero(at, len);
}

void
mem_fail_nth(uint64_t nth)
{
	atomic_store(&mem_fail_in, nth);
}
