/*
 * Workers.
 *
 * A worker is a thread with its own event loop. It owns the sessions of its
 * clients and the servers that are lent to them; nobody else touches those.
 * What others want of it comes by mail: a new client's socket, a server, a
 * cancel, a new setup, a question of the console.
 *
 * A client's number says where it is: the worker and the slot make its 31-bit
 * "process id" for cancels; with a counter above them it is an id that is never
 * used twice, by which mails name clients.
 *
 *      63            31        24                0
 *      | counter ... | worker  | slot, from 1    |
 *
 * A slot that has become free waits for its turn behind the others that are:
 * a new client is not to be taken for the one that has just gone.
 *
 * Sessions that have ended are freed by the reaper at the end of the turn,
 * when no upcall is running.
 */
#include "session/worker.h"

#include <string.h>
#include <unistd.h>

#include "auth/users.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/listen.h"
#include "session/cancel.h"
#include "session/errand.h"
#include "session/link.h"
#include "session/lookup.h"
#include "session/setup.h"

#define WORKER_MAGIC 0x776f726bu
#define TICK_US 1000000
#define SLOT_BITS 24
#define SLOT_MASK ((1u << SLOT_BITS) - 1)
#define PID_BITS 31
#define FIRST_SLOTS 64
/* A client that lives no longer has come and gone. */
#define FLEETING_US 1000000
#define FLEETING_MAX 16
/* With more clients in line than this, newcomers are let in only as fast as
 * the line moves, or a few each moment. They would ask at once and stand
 * before those who are in: ten thousand of them for a third of a second. */
#define LINE_MAX 16

struct process process;

MEM_TYPE(worker_type, worker);

/*
 * Mail.
 */

/* A function to be run on a worker. */
struct worker_mail {
	struct loop_mail mail;
	struct worker *worker;
	void (*run)(struct worker *worker, void *arg);
	void *arg;
};

/* A socket for a worker. */
struct socket_mail {
	struct loop_mail mail;
	struct worker *worker;
	int fd;
	bool is_unix;
};

MEM_TYPE(worker_mail_type, worker_mail);
MEM_TYPE(socket_mail_type, socket_mail);

static void
worker_mail_read(struct loop *loop, struct loop_mail *mail)
{
	struct worker_mail *order =
	    container_of(mail, struct worker_mail, mail);

	(void)loop;
	order->run(order->worker, order->arg);
	mem_delete(&worker_mail_type, order);
}

bool
worker_post(struct worker *worker,
    void (*run)(struct worker *worker, void *arg), void *arg)
{
	struct worker_mail *order = mem_new(&worker_mail_type);

	if (order == NULL)
		return false;
	order->mail.read = worker_mail_read;
	order->worker = worker;
	order->run = run;
	order->arg = arg;
	loop_post(worker->loop, &order->mail);
	return true;
}

void
workers_post(void (*run)(struct worker *worker, void *arg), void *arg)
{
	for (unsigned i = 0; i < process.worker_count; i++)
		worker_post(process.worker[i], run, arg);
}

static void
socket_read(struct loop *loop, struct loop_mail *mail)
{
	struct socket_mail *arrived =
	    container_of(mail, struct socket_mail, mail);

	(void)loop;
	client_create(arrived->worker, arrived->fd, arrived->is_unix);
	mem_delete(&socket_mail_type, arrived);
}

static struct worker *
worker_of_loop(const struct loop *loop)
{
	unsigned i = 0;

	while (process.worker[i]->loop != loop)
		check(++i < process.worker_count);
	return process.worker[i];
}

/* Room above max_client_conn for those who have not logged in: silent
 * connections cannot shut out everybody else. */
static bool
is_crowded(const struct worker *worker)
{
	int most = worker->setup_max_clients;

	return process.clients >= most + most / 4 + 100;
}

/*
 * Who is to take the next client: `here`, unless another has fewer. Clients
 * that stay are shared out exactly that way. Where they come and go within
 * moments a difference is let be, while there is time to spare: it costs a
 * fifth more to keep a second thread awake for what one does with ease.
 */
static struct worker *
worker_choose(struct worker *here)
{
	unsigned most = here->is_busy ? 0 : here->fleeting;
	struct worker *least = here;

	for (unsigned i = 0; i < process.worker_count; i++)
		if (process.worker[i]->client_count < least->client_count)
			least = process.worker[i];
	return here->client_count > least->client_count + most ? least : here;
}

static void
worker_note_leaving(struct worker *worker, const struct client *client)
{
	if (clock_wall_us() - client->connected_us >= FLEETING_US)
		worker->fleeting /= 2;
	else if (worker->fleeting < FLEETING_MAX)
		worker->fleeting++;
}

static void
worker_note_load(struct worker *worker)
{
	uint64_t cpu_us = clock_thread_us();

	worker->is_busy = cpu_us - worker->cpu_us > TICK_US / 10 * 8;
	worker->cpu_us = cpu_us;
	worker->fleeting /= 2;
}

static void
worker_hand_over(struct worker *worker, int fd, bool is_unix)
{
	struct socket_mail *mail = mem_new(&socket_mail_type);

	if (mail == NULL) {
		close(fd);
		worker->client_count--;
		process.clients--;
		return;
	}
	mail->mail.read = socket_read;
	mail->worker = worker;
	mail->fd = fd;
	mail->is_unix = is_unix;
	loop_post(worker->loop, &mail->mail);
}

struct loop *
workers_accept(void *arg, struct loop *loop, int fd, bool is_unix)
{
	struct worker *here = worker_of_loop(loop);
	struct worker *chosen = worker_choose(here);

	(void)arg;
	if (is_crowded(here)) {
		close(fd);
		return loop;
	}
	process.clients++;
	chosen->client_count++;
	if (chosen == here)
		client_create(here, fd, is_unix);
	else
		worker_hand_over(chosen, fd, is_unix);
	here->holds_accepts = here->waiting > LINE_MAX;
	return here->holds_accepts ? NULL : worker_choose(here)->loop;
}

void
worker_line_moved(struct worker *worker)
{
	if (!worker->holds_accepts || worker->waiting > LINE_MAX / 2)
		return;
	worker->holds_accepts = false;
	if (process.listener != NULL)
		listener_go_on(process.listener);
}

/*
 * Clients by number.
 */

/* When none is free. */
static bool
worker_grow_slots(struct worker *worker)
{
	uint32_t count = worker->slot_count == 0 ? FIRST_SLOTS :
	    worker->slot_count * 2;
	struct client **slots;
	uint32_t *free_slots;

	if (count > SLOT_MASK)
		return false;
	slots = mem_realloc(worker->slots, count * sizeof(struct client *));
	if (slots == NULL)
		return false;
	worker->slots = slots;
	free_slots = mem_realloc(worker->free_slots,
	    count * sizeof(*free_slots));
	if (free_slots == NULL)
		return false;
	worker->free_slots = free_slots;
	/* Slot 0 is never used: a process id of 0 would look like none. */
	worker->free_first = 0;
	for (uint32_t i = worker->slot_count; i < count; i++) {
		slots[i] = NULL;
		if (i > 0)
			free_slots[worker->free_count++] = i;
	}
	worker->slot_count = count;
	return true;
}

bool
worker_add_client(struct worker *worker, struct client *client)
{
	static _Atomic uint64_t counter = 1;

	if (worker->free_count == 0 && !worker_grow_slots(worker))
		return false;

	uint32_t slot = worker->free_slots[worker->free_first];
	worker->free_first = (worker->free_first + 1) % worker->slot_count;
	worker->free_count--;
	worker->slots[slot] = client;
	client->id = counter++ << PID_BITS | worker->index << SLOT_BITS | slot;
	return true;
}

void
worker_remove_client(struct worker *worker, struct client *client)
{
	uint32_t slot = client->id & SLOT_MASK;

	check(worker->slots[slot] == client);
	worker->slots[slot] = NULL;
	worker->free_slots[(worker->free_first + worker->free_count++) %
	    worker->slot_count] = slot;
	worker->client_count--;
	worker_note_leaving(worker, client);
}

uint32_t
client_cancel_pid(const struct client *client)
{
	return (uint32_t)(client->id & ((1u << PID_BITS) - 1));
}

struct worker *
worker_of_pid(uint32_t pid)
{
	uint32_t index = pid >> SLOT_BITS;

	return index < process.worker_count ? process.worker[index] : NULL;
}

struct worker *
worker_of_client(uint64_t id)
{
	return worker_of_pid((uint32_t)(id & ((1u << PID_BITS) - 1)));
}

struct client *
worker_find_slot(struct worker *worker, uint32_t pid)
{
	uint32_t slot = pid & SLOT_MASK;

	return slot < worker->slot_count ? worker->slots[slot] : NULL;
}

struct client *
worker_find_client(struct worker *worker, uint64_t id)
{
	struct client *client = worker_find_slot(worker,
	    (uint32_t)(id & SLOT_MASK));

	return client != NULL && client->id == id ? client : NULL;
}

/*
 * Room for rewritten bytes.
 */

char *
worker_arena(struct worker *worker, size_t len)
{
	char *at = worker->arena + worker->arena_used;

	if (len > WORKER_ARENA - worker->arena_used)
		return NULL;
	worker->arena_used += len;
	return at;
}

void
worker_arena_reset(struct worker *worker)
{
	worker->arena_used = 0;
}

/*
 * Pools, from a worker's side.
 */

struct stream_tuning
worker_tuning(const struct conf_options *o)
{
	return (struct stream_tuning){
		.keepalive = o->tcp_keepalive,
		.keepidle_s = (int)(o->tcp_keepidle_us / 1000000),
		.keepintvl_s = (int)(o->tcp_keepintvl_us / 1000000),
		.keepcnt = o->tcp_keepcnt,
		.user_timeout_us = o->tcp_user_timeout_us,
		.buffer_bytes = o->tcp_socket_buffer_bytes,
	};
}

void
worker_open_servers(struct worker *worker, struct pool *pool)
{
	while (process.leaving < LEAVING_NOW && pool_may_open(pool))
		server_open(worker, pool);
	worker_evict_for(worker, pool);
}

void
worker_evict_for(struct worker *worker, struct pool *pool)
{
	struct pool *other;
	struct pool_server *place = pool_evict(pool, &other);

	(void)worker;
	if (place != NULL)
		server_dismiss(place);
}

static bool
pools_share_a_limit(const struct pool *a, const struct pool *b)
{
	return a != b && (a->database_quota == b->database_quota ||
	    a->user_quota == b->user_quota);
}

void
worker_make_room(struct worker *worker, struct pool *pool)
{
	struct pool *other = NULL;

	if (!pool_is_in_the_way(pool))
		return;
	while ((other = pool_next(other)) != NULL)
		if (pools_share_a_limit(pool, other))
			worker_evict_for(worker, other);
}

void
worker_kick_pool(struct worker *worker, struct pool *pool)
{
	struct pool_server *place;

	while ((place = pool_pop_wanted(pool)) != NULL)
		server_offer(place);
	worker_open_servers(worker, pool);
}

/* A server of this pool is closed: whoever shares a limit with it may be
 * waiting for just that. */
void
worker_pool_shrunk(struct worker *worker, struct pool *pool)
{
	struct pool *other = NULL;

	worker_open_servers(worker, pool);
	if (pool->database_quota->max_servers == 0 &&
	    pool->user_quota->max_servers == 0)
		return;
	while ((other = pool_next(other)) != NULL)
		if (pools_share_a_limit(pool, other))
			worker_open_servers(worker, other);
}

/* Tells those who wait for a pool that has no server to give. */
static void
worker_tell_trouble(struct worker *worker, void *arg)
{
	struct pool *pool = arg;

	if (!pool_is_hopeless(pool, clock_us()))
		return;
	list_each(node, &worker->clients[CLIENT_WAITING]) {
		struct client *client =
		    container_of(node, struct client, node);
		if (client->pool == pool)
			client_end_trouble(client, END_SERVER_DOWN);
	}
	list_each(node, &worker->clients[CLIENT_WELCOME]) {
		struct client *client =
		    container_of(node, struct client, node);
		if (client->pool == pool)
			client_end_trouble(client, END_SERVER_DOWN_LOGIN);
	}
}

void
worker_pool_failed(struct worker *worker, struct pool *pool)
{
	struct pool_trouble trouble;
	struct pool_server *place;

	if (pool_is_hopeless(pool, clock_us()))
		workers_post(worker_tell_trouble, pool);
	/* Somebody waited for this one, while a server may idle at another
	 * worker: a new one was to be had faster. */
	place = pool_pop_wanted(pool);
	if (place != NULL)
		server_offer(place);
	pool_copy_trouble(pool, &trouble);
	if (trouble.retry_us != 0 &&
	    trouble.retry_us < worker->tick.deadline_us)
		loop_timer_set(worker->loop, &worker->tick, trouble.retry_us);
}

/*
 * Housekeeping.
 */

static void
worker_check_pools(struct worker *worker)
{
	uint64_t now_us = clock_us();
	struct pool *pool = NULL;

	while ((pool = pool_next(pool)) != NULL) {
		worker_open_servers(worker, pool);
		if (pool_is_hopeless(pool, now_us))
			worker_tell_trouble(worker, pool);
	}
}

/* The last client has gone. Until then a worker without clients goes on: its
 * idle servers may be wanted elsewhere. */
static void
worker_stop(struct worker *worker, void *arg)
{
	(void)arg;
	if (process.clients == 0)
		loop_stop(worker->loop);
}

static void
worker_tick(struct loop_timer *timer)
{
	struct worker *worker = container_of(timer, struct worker, tick);

	loop_timer_set(worker->loop, timer, clock_us() + TICK_US);
	worker_note_load(worker);
	worker_check_pools(worker);
	if (process.leaving > STAYING)
		worker_stop(worker, NULL);
}

static void
worker_reap(struct loop_task *task)
{
	struct worker *worker = container_of(task, struct worker, reaper);
	struct list *node;

	while ((node = list_pop(&worker->dead_clients)) != NULL)
		client_free(container_of(node, struct client, node));
	while ((node = list_pop(&worker->dead_servers)) != NULL)
		server_free(container_of(node, struct server, node));
	if (process.leaving > STAYING && process.clients == 0)
		workers_post(worker_stop, NULL);
}

static void
worker_dispatch(struct loop_task *task)
{
	struct worker *worker = container_of(task, struct worker, dispatcher);
	struct list *node;

	while ((node = list_pop(&worker->to_dispatch)) != NULL) {
		struct server *server =
		    container_of(node, struct server, dispatch);
		if (server->state == SERVER_RESETTING &&
		    server->owed.count == 0)
			server_move(server, SERVER_FREE);
		if (server->state == SERVER_FREE)
			server_free_up(server);
	}
}

/*
 * Configuration and shutdown.
 */

/* The idle servers of databases that have moved; those in use are closed when
 * they are free (server_is_expired). */
static void
worker_retire_idle(struct worker *worker)
{
	list_each(node, &worker->servers[SERVER_IDLE]) {
		struct server *server =
		    container_of(node, struct server, node);
		if (server->epoch != server->pool->epoch &&
		    pool_remove_idle(server->pool, &server->place))
			server_close(server, "database was changed");
	}
}

/* Limits of time may be others now, for those too who wait or idle already. */
static void
worker_arm_all(struct worker *worker)
{
	for (int state = 0; state < CLIENT_CLOSING; state++)
		list_each(node, &worker->clients[state]) {
			struct client *client =
			    container_of(node, struct client, node);
			/* The login's own limit stays as it is. */
			if (client->pool != NULL && client->login == NULL)
				client_arm(client);
		}
	list_each(node, &worker->servers[SERVER_IDLE])
		server_look(container_of(node, struct server, node));
}

static struct client *
worker_find_replaced(struct worker *worker)
{
	list_each(node, &worker->clients[CLIENT_ACTIVE]) {
		struct client *client =
		    container_of(node, struct client, node);
		if (link_is_replaced(client) && link_is_over(client))
			return client;
	}
	return NULL;
}

void
worker_end_replaced(struct worker *worker, void *unused)
{
	struct client *client;

	(void)unused;
	while ((client = worker_find_replaced(worker)) != NULL)
		client_end(client, END_REPLACED, NULL);
}

static void
worker_configure(struct worker *worker, void *arg)
{
	struct setup *setup = arg;

	setup_unref(worker->setup);
	worker->setup = setup;
	worker->setup_max_clients = setup->conf->o.max_client_conn;
	worker_retire_idle(worker);
	worker_arm_all(worker);
	worker_end_replaced(worker, NULL);
	worker_check_pools(worker);
}

void
workers_prepare(struct conf *conf)
{
	struct hash_node *node = NULL;

	while ((node = hash_walk(&conf->databases, node)) != NULL) {
		const struct conf_database *db =
		    container_of(node, struct conf_database, by_name);
		if (db->user != NULL && db->min_pool_size > 0)
			pool_get(conf, db, span_of(db->name),
			    span_of(db->user));
	}
}

void
workers_configure(struct setup *setup)
{
	/* Pools first: until the last worker has the new setup, its old one
	 * keeps alive what a pool may have pointed to a moment ago. */
	pools_configure(setup->conf);
	users_cache_clear();
	workers_prepare(setup->conf);
	for (unsigned i = 0; i < process.worker_count; i++)
		if (!worker_post(process.worker[i], worker_configure,
		    setup_ref(setup)))
			setup_unref(setup);
	setup_unref(setup);
}

/* A client in a transaction may finish it; one in line for its first may have
 * that, unless none is begun any more. */
static bool
client_may_stay(const struct client *client)
{
	if (process.leaving == LEAVING_NOW)
		return false;
	if (client->state == CLIENT_WAITING)
		return process.leaving < LEAVING_SERVERS ||
		    client->migrant != NULL;
	return client->state == CLIENT_ACTIVE && !link_is_over(client);
}

static void
worker_leave(struct worker *worker, void *arg)
{
	(void)arg;
	for (int state = 0; state < CLIENT_CLOSING; state++)
		list_each(node, &worker->clients[state]) {
			struct client *client =
			    container_of(node, struct client, node);
			if (!client_may_stay(client))
				client_end(client, END_SHUTDOWN, NULL);
		}
	loop_defer(worker->loop, &worker->reaper);
	if (process.leaving == LEAVING_NOW)
		loop_stop(worker->loop);
}

void
workers_leave(enum leaving how)
{
	if ((int)how > process.leaving)
		process.leaving = (int)how;
	workers_post(worker_leave, NULL);
}

/*
 * Life.
 */

struct worker *
worker_create(unsigned index, struct setup *setup)
{
	struct worker *worker = mem_new(&worker_type);

	if (worker == NULL)
		return NULL;
	worker->magic = WORKER_MAGIC;
	worker->index = index;
	worker->setup = setup_ref(setup);
	worker->setup_max_clients = setup->conf->o.max_client_conn;
	worker->arena = mem_alloc(WORKER_ARENA);
	worker->loop = loop_create("worker");
	for (int i = 0; i < CLIENT_STATES; i++)
		list_init(&worker->clients[i]);
	for (int i = 0; i < SERVER_STATES; i++)
		list_init(&worker->servers[i]);
	list_init(&worker->cancels);
	list_init(&worker->errands);
	list_init(&worker->dead_clients);
	list_init(&worker->dead_servers);
	list_init(&worker->to_dispatch);
	loop_task_init(&worker->reaper, worker_reap);
	loop_task_init(&worker->dispatcher, worker_dispatch);
	loop_timer_init(&worker->tick, worker_tick);
	if (worker->arena == NULL || worker->loop == NULL) {
		worker_destroy(worker);
		return NULL;
	}
	return worker;
}

void
worker_run(struct worker *worker)
{
	check_magic(worker, WORKER_MAGIC);
	loop_timer_set(worker->loop, &worker->tick, clock_us() + TICK_US);
	loop_run(worker->loop);
}

/* Sessions that are still there at the end: their sockets are closed. */
static void
worker_drop_sessions(struct worker *worker)
{
	cancels_drop(worker);
	errands_drop(worker);
	for (int state = 0; state < CLIENT_GONE; state++)
		list_each(node, &worker->clients[state])
			client_drop(container_of(node, struct client, node));
	for (int state = 0; state < SERVER_GONE; state++)
		list_each(node, &worker->servers[state])
			server_drop(container_of(node, struct server, node));
	worker_reap(&worker->reaper);
}

void
workers_finish(void)
{
	/* What was on its way when the last loop ended is delivered, so that
	 * whoever owns it lets go of it. Answers to that go nowhere: twice. */
	for (unsigned i = 0; i < 2 * process.worker_count; i++)
		loop_drain(process.worker[i % process.worker_count]->loop);
	listener_destroy(process.listener);
	process.listener = NULL;
	for (unsigned i = 0; i < process.worker_count; i++)
		worker_drop_sessions(process.worker[i]);
	for (unsigned i = 0; i < process.worker_count; i++)
		loop_drain(process.worker[i]->loop);
	for (unsigned i = 0; i < process.worker_count; i++)
		worker_destroy(process.worker[i]);
}

void
worker_destroy(struct worker *worker)
{
	if (worker == NULL)
		return;
	if (worker->loop != NULL)
		lookup_finish(worker);
	buf_finish(&worker->scratch);
	mem_free(worker->arena);
	mem_free(worker->slots);
	mem_free(worker->free_slots);
	loop_timer_clear(&worker->tick);
	loop_destroy(worker->loop);
	setup_unref(worker->setup);
	mem_delete(&worker_type, worker);
}
