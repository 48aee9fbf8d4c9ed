/*
 * The parts of list and hash that need no speed. What runs once a message is
 * inline in the header.
 */
#include <string.h>

#include "base/check.h"
#include "base/map.h"
#include "base/mem.h"

#define HASH_FIRST_SLOTS 16

size_t
list_count(const struct list *head)
{
	const struct list *node;
	size_t count = 0;

	if (list_is_empty(head))
		return 0;
	for (node = head->next; node != head; node = node->next)
		count++;
	return count;
}

void
hash_finish(struct hash *hash)
{
	mem_free(hash->slots);
	*hash = (struct hash){ 0 };
}

static void
hash_link(struct hash *hash, struct hash_node *node)
{
	struct hash_node **slot = &hash->slots[hash_slot(hash, node->hash)];

	node->next = *slot;
	*slot = node;
}

/* Twice the slots; the nodes stay where they are and are linked anew. */
static bool
hash_grow(struct hash *hash)
{
	struct hash grown = { .count = hash->count };
	struct hash_node *node, *next;
	size_t i;

	grown.slot_count = hash->slot_count != 0 ?
	    hash->slot_count * 2 : HASH_FIRST_SLOTS;
	grown.slots = mem_zalloc(grown.slot_count * sizeof(*grown.slots));
	if (grown.slots == NULL)
		return false;
	for (i = 0; i < hash->slot_count; i++)
		for (node = hash->slots[i]; node != NULL; node = next) {
			next = node->next;
			hash_link(&grown, node);
		}
	mem_free(hash->slots);
	*hash = grown;
	return true;
}

bool
hash_add(struct hash *hash, struct hash_node *node, uint64_t key_hash)
{
	/* No memory to grow means longer chains, not a failure, unless there
	 * is no slot at all. */
	if (hash->count >= hash->slot_count && !hash_grow(hash) &&
	    hash->slot_count == 0)
		return false;
	node->hash = key_hash;
	hash_link(hash, node);
	hash->count++;
	return true;
}

void
hash_remove(struct hash *hash, struct hash_node *node)
{
	struct hash_node **at;

	check(hash->count > 0);
	at = &hash->slots[hash_slot(hash, node->hash)];
	while (*at != node) {
		check(*at != NULL);
		at = &(*at)->next;
	}
	*at = node->next;
	node->next = NULL;
	hash->count--;
}

struct hash_node *
hash_walk(const struct hash *hash, const struct hash_node *after)
{
	size_t slot = 0;

	if (after != NULL) {
		if (after->next != NULL)
			return after->next;
		slot = hash_slot(hash, after->hash) + 1;
	}
	for (; slot < hash->slot_count; slot++)
		if (hash->slots[slot] != NULL)
			return hash->slots[slot];
	return NULL;
}
