/* Intrusive list and hash. */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

/*
 * A list is a head node; an object holds a node for each list it can be on.
 * A node that is on no list points to itself or is all zeroes, and so does
 * an empty head: list_remove() may be called twice, and what mem_new() made
 * needs no list_init().
 */
struct list {
	struct list *next;
	struct list *prev;
};

#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

static inline void
list_init(struct list *head)
{
	head->next = head->prev = head;
}

static inline bool
list_is_empty(const struct list *head)
{
	return head->next == NULL || head->next == head;
}

/* On some list? */
static inline bool
list_is_on(const struct list *node)
{
	return !list_is_empty(node);
}

/* Private: puts `node` between two neighbours. */
static inline void
list_put_between(struct list *node, struct list *prev, struct list *next)
{
	check(!list_is_on(node));
	node->prev = prev;
	node->next = next;
	prev->next = node;
	next->prev = node;
}

/* At the front; the node must be on no list. */
static inline void
list_push(struct list *head, struct list *node)
{
	if (head->next == NULL)
		list_init(head);
	list_put_between(node, head, head->next);
}

/* At the back; the node must be on no list. */
static inline void
list_append(struct list *head, struct list *node)
{
	if (head->next == NULL)
		list_init(head);
	list_put_between(node, head->prev, head);
}

static inline void
list_remove(struct list *node)
{
	if (node->next != NULL) {
		node->prev->next = node->next;
		node->next->prev = node->prev;
	}
	list_init(node);
}

/* NULL when empty. */
static inline struct list *
list_first(const struct list *head)
{
	return list_is_empty(head) ? NULL : head->next;
}

/* NULL when empty. */
static inline struct list *
list_pop(struct list *head)
{
	struct list *node = list_first(head);

	if (node != NULL)
		list_remove(node);
	return node;
}

size_t list_count(const struct list *head);	/* walks it */

/* Private: where list_each() starts; `head` itself when it is empty. */
static inline struct list *
list_start(struct list *head)
{
	return list_is_empty(head) ? head : head->next;
}

/* `node` may be removed, but not its successor, inside the loop. */
#define list_each(node, head) \
	for (struct list *node = list_start(head), *node##_next = node->next; \
	    node != (head); node = node##_next, node##_next = node->next)

/*
 * A chained hash that grows. The object holds a hash_node; the key's hash is
 * the caller's (span_hash). All zeroes is an empty hash.
 */
struct hash_node {
	struct hash_node *next;
	uint64_t hash;
};

struct hash {
	struct hash_node **slots;
	size_t slot_count;		/* power of two, or 0 */
	size_t count;
};

void hash_finish(struct hash *hash);	/* frees the slots, not the objects */
/* false when out of memory (the node is not added then). */
bool hash_add(struct hash *hash, struct hash_node *node, uint64_t key_hash);
/* The node must be in it. */
void hash_remove(struct hash *hash, struct hash_node *node);
/* Private: the slot of a key. The product spreads keys that are mere
 * numbers or addresses. */
static inline size_t
hash_slot(const struct hash *hash, uint64_t key_hash)
{
	return (size_t)(key_hash * 0x9e3779b97f4a7c15u >> 32) &
	    (hash->slot_count - 1);
}

/* Private: the first of a chain, from `node` on, with this hash, or NULL. */
static inline struct hash_node *
hash_seek(struct hash_node *node, uint64_t key_hash)
{
	while (node != NULL && node->hash != key_hash)
		node = node->next;
	return node;
}

/* First node with this hash; go on with hash_next_equal(). */
static inline struct hash_node *
hash_find(const struct hash *hash, uint64_t key_hash)
{
	if (hash->count == 0)
		return NULL;
	return hash_seek(hash->slots[hash_slot(hash, key_hash)], key_hash);
}

static inline struct hash_node *
hash_next_equal(const struct hash_node *node)
{
	return hash_seek(node->next, node->hash);
}

/* Walk: start with NULL, ends with NULL. Do not add or remove meanwhile. */
struct hash_node *hash_walk(const struct hash *hash,
    const struct hash_node *after);

#endif
