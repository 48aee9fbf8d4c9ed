/*
 * Hubs: one listening server connection for all clients of a pool.
 *
 *   worker A           hub's worker                     Postgres
 *   channels.c  --subscribe-->  LISTEN "x"  ----------->   |
 *      ^       <---answer-----  ReadyForQuery <------------+
 *      |       <-notification-  NotificationResponse <-----+
 *   its clients      |
 *   worker B   <-----+          one mail a worker, however many listen there
 *
 * The hub knows how many clients of each worker want a channel; who they are
 * is the worker's business (session/channels.c). All of this file but
 * hub_of() and what posts mail runs on one worker, the hub's; its server is
 * opened, read and closed by the code for all servers, is in the state
 * LISTENING, and never lent. Mail between two threads arrives in the order in
 * which it was posted, and all that is promised here about order rests on
 * that, and on the order in which a server answers.
 *
 * The connection is opened for the first client that wants it and closed when
 * the last has gone for a while. It does not count in pool_size: the client
 * that waits for it holds a server, which may be the pool's only one. It does
 * count for max_db_connections and max_user_connections. server_lifetime and
 * server_idle_timeout do not apply to it. Where it cannot be had, whoever has
 * asked is told no, and stays pinned to a server that listens for it.
 *
 * When it is lost, what is notified until the next one listens is lost as
 * well. So all who listen are told (channels_resumed) as soon as the new one
 * does, in the order of the notifications.
 */
#include "session/hub.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "auth/digest.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/loop.h"
#include "pool/pool.h"
#include "session/channels.h"
#include "session/database.h"
#include "session/owed.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/worker.h"
#include "wire/body.h"

#define HUB_MAGIC 0x68756221u
/* How often the hub is looked after, and for how long it stays open without
 * anybody who listens. */
#define HUB_TICK_US 1000000
#define HUB_LINGER_US 5000000
/* Between two tries to open it. */
#define HUB_RETRY_FIRST_US 50000
#define HUB_RETRY_MAX_US 1000000

struct hub {
	uint32_t magic;
	struct pool *pool;
	struct worker *worker;		/* where it lives */
	struct server *server;		/* NULL = none */
	bool is_open;			/* the server is logged in */
	bool is_hearing;		/* ... and listens to all channels */
	bool is_up;			/* ... and has said so */
	bool was_lost;			/* all are to be told when it hears */
	struct hash channels;		/* struct hub_channel */
	struct list asked;		/* struct hub_mail: to be answered, in
					 * order; what was sent stands behind
					 * what was not */
	struct loop_timer timer;
	unsigned failures;		/* to open it, in a row */
	uint64_t retry_us;		/* not before that */
	uint64_t asked_us;		/* the last query of ours; 0 = none */
	uint64_t empty_us;		/* since when nobody listens; 0 */
	struct hub_branch branch[];	/* by worker */
};

struct hub_channel {
	struct hash_node by_name;
	unsigned total;
	unsigned *wanted;		/* by worker: so many clients */
	uint32_t len;
	char name[];
};

enum hub_news {
	HUB_SUBSCRIBE,
	HUB_UNSUBSCRIBE,
	HUB_MARK_ANEW,
	HUB_RETIRE,
	/* from the hub to a worker: */
	HUB_ANSWER,
	HUB_NOTIFICATION,
	HUB_MARK,
	HUB_RESUMED,
};

struct hub_mail {
	struct loop_mail mail;
	struct list node;		/* hub->asked */
	struct hub *hub;
	struct worker *to;
	unsigned from;			/* worker */
	enum hub_news news;
	bool sent;			/* its query is on its way */
	bool good;
	uint64_t client_id;
	uint64_t serial;
	size_t len;
	char text[];			/* names, or a notification */
};

static void hub_read(struct hub_mail *mail);

/*
 * Mail.
 */

static void
mail_read(struct loop *loop, struct loop_mail *mail)
{
	(void)loop;
	hub_read(container_of(mail, struct hub_mail, mail));
}

static struct hub_mail *
mail_create(struct hub *hub, enum hub_news news, struct span text)
{
	struct hub_mail *mail = mem_zalloc(sizeof(*mail) + text.len);

	if (mail == NULL)
		return NULL;
	mail->mail.read = mail_read;
	mail->hub = hub;
	mail->news = news;
	mail->len = text.len;
	if (text.len > 0)
		memcpy(mail->text, text.at, text.len);
	return mail;
}

static void
mail_post(struct hub_mail *mail, struct worker *to)
{
	mail->to = to;
	loop_post(to->loop, &mail->mail);
}

static struct span
mail_text(const struct hub_mail *mail)
{
	return (struct span){ mail->text, mail->len };
}

/* Cuts the next name off. */
static bool
next_name(struct span *names, struct span *ret_name)
{
	if (names->len == 0)
		return false;
	*ret_name = (struct span){ names->at, strlen(names->at) };
	names->at += ret_name->len + 1;
	names->len -= ret_name->len + 1;
	return true;
}

/*
 * What any thread may call.
 */

struct hub *
hub_find(struct pool *pool)
{
	return atomic_load(&pool->hub);
}

static void hub_timer(struct loop_timer *timer);

struct hub *
hub_of(struct pool *pool)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static unsigned next_worker;
	unsigned workers = process.worker_count;
	struct hub *hub = hub_find(pool);

	if (hub != NULL)
		return hub;
	pthread_mutex_lock(&lock);
	hub = hub_find(pool);
	if (hub == NULL)
		hub = mem_zalloc(sizeof(*hub) +
		    workers * sizeof(struct hub_branch));
	if (hub != NULL && hub->magic == 0) {
		hub->magic = HUB_MAGIC;
		hub->pool = pool;
		hub->worker = process.worker[next_worker++ % workers];
		loop_timer_init(&hub->timer, hub_timer);
		atomic_store(&pool->hub, hub);
	}
	pthread_mutex_unlock(&lock);
	return hub;
}

struct hub_branch *
hub_branch(struct hub *hub, const struct worker *worker)
{
	return &hub->branch[worker->index];
}

bool
hub_subscribe(struct hub *hub, const struct worker *from, uint64_t client_id,
    uint64_t serial, const struct buf *names)
{
	struct hub_mail *mail = names->failed ? NULL :
	    mail_create(hub, HUB_SUBSCRIBE, buf_span(names));

	if (mail == NULL)
		return false;
	mail->from = from->index;
	mail->client_id = client_id;
	mail->serial = serial;
	mail_post(mail, hub->worker);
	return true;
}

void
hub_unsubscribe(struct hub *hub, const struct worker *from,
    const struct buf *names)
{
	struct hub_mail *mail;

	if (names->len == 0 || process.leaving == LEAVING_NOW)
		return;
	/* Without memory for it the hub listens to something that nobody
	 * wants. */
	mail = mail_create(hub, HUB_UNSUBSCRIBE, buf_span(names));
	if (mail == NULL)
		return;
	mail->from = from->index;
	mail_post(mail, hub->worker);
}

bool
hub_mark(struct hub *hub, uint64_t client_id, uint64_t serial)
{
	struct hub_mail *mail = mail_create(hub, HUB_MARK_ANEW, SPAN_NONE);

	if (mail == NULL)
		return false;
	mail->client_id = client_id;
	mail->serial = serial;
	mail_post(mail, hub->worker);
	return true;
}

void
hub_retire(struct pool *pool)
{
	struct hub *hub = hub_find(pool);
	struct hub_mail *mail = hub == NULL ? NULL :
	    mail_create(hub, HUB_RETIRE, SPAN_NONE);

	if (mail != NULL)
		mail_post(mail, hub->worker);
}

static char mark_name[32];

static void
mark_name_draw(void)
{
	uint64_t drawn = 0;

	/* Without random bytes it is only easier to guess. */
	if (!digest_random(&drawn, sizeof(drawn)))
		drawn = clock_wall_us();
	snprintf(mark_name, sizeof(mark_name), "pgsluice_%016llx",
	    (unsigned long long)drawn);
}

struct span
hub_mark_channel(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, mark_name_draw);
	return span_of(mark_name);
}

void
hub_put_name(struct buf *out, const char *word, struct span name)
{
	buf_printf(out, "%s \"", word);
	for (size_t i = 0; i < name.len; i++) {
		if (name.at[i] == '"')
			buf_add(out, "\"", 1);
		buf_add(out, name.at + i, 1);
	}
	buf_add_text(out, "\";");
}

void
hub_put_mark(struct buf *out, uint64_t client_id, uint64_t serial)
{
	buf_printf(out, "NOTIFY \"%.*s\",'%llu %llu'",
	    SPAN_ARG(hub_mark_channel()), (unsigned long long)client_id,
	    (unsigned long long)serial);
}

/*
 * Channels.
 */

static struct hub_channel *
channel_find(const struct hub *hub, struct span name)
{
	struct hash_node *node = hash_find(&hub->channels, span_hash(name));

	for (; node != NULL; node = hash_next_equal(node)) {
		struct hub_channel *channel =
		    container_of(node, struct hub_channel, by_name);
		if (span_eq(name, (struct span){ channel->name,
		    channel->len }))
			return channel;
	}
	return NULL;
}

static void
channel_destroy(struct hub_channel *channel)
{
	if (channel != NULL)
		mem_free(channel->wanted);
	mem_free(channel);
}

static struct hub_channel *
channel_create(struct hub *hub, struct span name)
{
	struct hub_channel *channel =
	    mem_zalloc(sizeof(*channel) + name.len);

	if (channel == NULL)
		return NULL;
	channel->len = (uint32_t)name.len;
	memcpy(channel->name, name.at, name.len);
	channel->wanted = mem_zalloc(process.worker_count *
	    sizeof(*channel->wanted));
	if (channel->wanted == NULL ||
	    !hash_add(&hub->channels, &channel->by_name, span_hash(name))) {
		channel_destroy(channel);
		return NULL;
	}
	return channel;
}

/* True: nobody wants it any more. */
static bool
channel_leave(struct hub *hub, unsigned worker, struct span name)
{
	struct hub_channel *channel = channel_find(hub, name);

	if (channel == NULL || channel->wanted[worker] == 0)
		return false;
	channel->wanted[worker]--;
	if (--channel->total > 0)
		return false;
	hash_remove(&hub->channels, &channel->by_name);
	channel_destroy(channel);
	return true;
}

/* Counts them. False: out of memory, perhaps for some only; the client takes
 * all of them back when it is told no. */
static bool
channels_join(struct hub *hub, unsigned worker, struct span names)
{
	struct span rest = names, name;

	while (next_name(&rest, &name)) {
		struct hub_channel *channel = channel_find(hub, name);
		if (channel == NULL)
			channel = channel_create(hub, name);
		if (channel == NULL)
			return false;
		channel->wanted[worker]++;
		channel->total++;
	}
	return true;
}

/*
 * The server.
 */

static void
hub_answer(struct hub_mail *mail, bool good)
{
	struct worker *to = process.worker[mail->from];

	list_remove(&mail->node);
	if (mail->news != HUB_SUBSCRIBE) {
		mem_free(mail);
		return;
	}
	mail->news = HUB_ANSWER;
	mail->good = good;
	mail_post(mail, to);
}

static void
hub_answer_all(struct hub *hub, bool good, bool sent)
{
	list_each(node, &hub->asked) {
		struct hub_mail *mail =
		    container_of(node, struct hub_mail, node);
		if (!mail->sent || sent)
			hub_answer(mail, good);
	}
}

/* Sends what is in `scratch` as a query. */
static void
hub_ask(struct hub *hub, struct buf *out, size_t began)
{
	buf_add(out, "", 1);
	msg_end(out, began);
	if (out->failed || owed_push(&hub->server->owed, OWED_QUERY,
	    OWED_SWALLOW) == NULL) {
		server_close(hub->server, "out of memory");
		return;
	}
	hub->asked_us = clock_us();
	stream_send(&hub->server->s, out->at, out->len);
}

static struct buf *
hub_begin(struct hub *hub, size_t *ret_began)
{
	struct buf *out = &hub->worker->scratch;

	buf_clear(out);
	*ret_began = msg_begin(out, 'Q');
	return out;
}

static void
hub_tick_in(struct hub *hub, uint64_t delay_us)
{
	if (process.leaving < LEAVING_NOW)
		loop_timer_set(hub->worker->loop, &hub->timer,
		    clock_us() + delay_us);
}

static bool
hub_is_wanted(const struct hub *hub)
{
	return hub->channels.count > 0;
}

static void
hub_put_off(struct hub *hub)
{
	unsigned shift = hub->failures < 10 ? hub->failures : 10;
	uint64_t pause_us = (uint64_t)HUB_RETRY_FIRST_US << shift;

	if (pause_us > HUB_RETRY_MAX_US)
		pause_us = HUB_RETRY_MAX_US;
	hub->retry_us = clock_us() + pause_us;
	hub_tick_in(hub, pause_us);
}

static void
hub_open(struct hub *hub)
{
	struct server *server;

	if (process.leaving == LEAVING_NOW)
		return;
	if (!pool_reserve_aside(hub->pool)) {
		hub->failures++;
		hub_answer_all(hub, false, true);
		hub_put_off(hub);
		return;
	}
	server = server_create(hub->worker, hub->pool);
	if (server == NULL) {
		pool_release_aside(hub->pool);
		hub->failures++;
		hub_answer_all(hub, false, true);
		hub_put_off(hub);
		return;
	}
	server->hub = hub;
	server->uncounted = true;
	hub->server = server;
	hub_tick_in(hub, HUB_TICK_US);
	server_login_start(server);
}

void
hub_opened(struct server *server)
{
	struct hub *hub = server->hub;
	struct hash_node *node = NULL;
	struct buf *out;
	size_t began;

	check(hub->server == server);
	server_move(server, SERVER_LISTENING);
	loop_timer_clear(&server->timer);
	hub->is_open = true;
	out = hub_begin(hub, &began);
	hub_put_name(out, "LISTEN", hub_mark_channel());
	while ((node = hash_walk(&hub->channels, node)) != NULL) {
		const struct hub_channel *channel =
		    container_of(node, struct hub_channel, by_name);
		hub_put_name(out, "LISTEN", (struct span){ channel->name,
		    channel->len });
	}
	hub_ask(hub, out, began);
}

static void
hub_tell_resumed(struct hub *hub)
{
	hub->was_lost = false;
	for (unsigned i = 0; i < process.worker_count; i++) {
		struct hub_mail *mail =
		    mail_create(hub, HUB_RESUMED, SPAN_NONE);
		if (mail != NULL)
			mail_post(mail, process.worker[i]);
	}
}

/* What was notified after its LISTENs comes before their answer: the first of
 * it says as well that they have been committed. */
static void
hub_hears(struct hub *hub)
{
	if (hub->is_hearing)
		return;
	hub->is_hearing = true;
	if (hub->was_lost)
		hub_tell_resumed(hub);
}

void
hub_answered(struct server *server)
{
	struct hub *hub = server->hub;
	struct list *first = list_first(&hub->asked);

	if (server->state != SERVER_LISTENING)
		return;			/* connect_query */
	if (server->tainted) {
		server_close(server, "it cannot listen");
		return;
	}
	hub->asked_us = server->owed.count > 0 ? clock_us() : 0;
	if (hub->is_up) {
		check(first != NULL);
		hub_answer(container_of(first, struct hub_mail, node), true);
		return;
	}
	hub_hears(hub);
	hub->is_up = true;
	hub->failures = 0;
	hub_answer_all(hub, true, false);
}

void
hub_gone(struct server *server)
{
	struct hub *hub = server->hub;

	check(hub->server == server);
	pool_release_aside(hub->pool);
	hub->failures = hub->is_up ? 0 : hub->failures + 1;
	hub->was_lost = hub->was_lost || hub->is_hearing;
	hub->server = NULL;
	hub->is_open = false;
	hub->is_hearing = false;
	hub->is_up = false;
	hub->asked_us = 0;
	if (process.leaving == LEAVING_NOW)
		return;
	hub_answer_all(hub, false, true);
	if (hub_is_wanted(hub))
		hub_put_off(hub);
	else
		hub->was_lost = false;
}

/* It would linger where no connection is to idle. */
static bool
hub_is_out_of_place(const struct hub *hub)
{
	return !hub_is_wanted(hub) && hub->server != NULL &&
	    hub->server->state == SERVER_LISTENING &&
	    database_is_left_alone(hub->pool);
}

static void
hub_look_after(struct hub *hub)
{
	struct server *server = hub->server;
	uint64_t now_us = clock_us();
	uint64_t limit_us =
	    hub->worker->setup->conf->o.server_connect_timeout_us;

	if (server->state != SERVER_LISTENING)
		return;			/* server_timer() has an eye on it */
	if (server->epoch != hub->pool->epoch || server->tainted)
		server_close(server, server->tainted ? "unclean server" :
		    "database was changed");
	else if (limit_us > 0 && hub->asked_us != 0 &&
	    now_us >= hub->asked_us + limit_us)
		server_close(server, "no answer to a query of ours");
	else if (hub_is_out_of_place(hub))
		server_close(server, "nobody listens");
	else if (hub_is_wanted(hub) || server->owed.count > 0)
		hub->empty_us = 0;
	else if (hub->empty_us == 0)
		hub->empty_us = now_us;
	else if (now_us >= hub->empty_us + HUB_LINGER_US)
		server_close(server, "nobody listens");
}

void
hub_vacate(struct pool *pool, const struct worker *here)
{
	struct hub *hub = hub_find(pool);

	if (hub != NULL && hub->worker == here && hub_is_out_of_place(hub))
		server_close(hub->server, "nobody listens");
}

static void
hub_timer(struct loop_timer *timer)
{
	struct hub *hub = container_of(timer, struct hub, timer);

	check_magic(hub, HUB_MAGIC);
	if (hub->server != NULL)
		hub_look_after(hub);
	else if (hub_is_wanted(hub))
		hub_open(hub);
	if (hub->server != NULL)
		hub_tick_in(hub, HUB_TICK_US);
}

/*
 * Notifications.
 */

/* "client serial" */
static void
hub_pass_mark(struct hub *hub, struct span payload)
{
	struct span id_text, serial_text;
	uint64_t client_id, serial;
	struct hub_mail *mail;
	struct worker *to;

	if (!span_next(&payload, ' ', &id_text) ||
	    !span_next(&payload, ' ', &serial_text) ||
	    !span_parse_u64(id_text, &client_id) ||
	    !span_parse_u64(serial_text, &serial))
		return;
	to = worker_of_client(client_id);
	mail = to == NULL ? NULL : mail_create(hub, HUB_MARK, SPAN_NONE);
	if (mail == NULL)
		return;
	mail->client_id = client_id;
	mail->serial = serial;
	mail_post(mail, to);
}

bool
hub_notified(struct server *server, struct span bytes)
{
	struct hub *hub = server->hub;
	struct body body = body_of(bytes);
	const struct hub_channel *channel;

	body_u32(&body);
	struct span name = body_text(&body);
	struct span payload = body_text(&body);
	if (!body_is_done(&body))
		return false;
	if (hub->is_open)
		hub_hears(hub);
	if (span_eq(name, hub_mark_channel())) {
		hub_pass_mark(hub, payload);
		return true;
	}
	channel = channel_find(hub, name);
	for (unsigned i = 0; channel != NULL && i < process.worker_count;
	    i++) {
		if (channel->wanted[i] == 0)
			continue;
		struct hub_mail *mail =
		    mail_create(hub, HUB_NOTIFICATION, bytes);
		if (mail != NULL)
			mail_post(mail, process.worker[i]);
		else
			server->tainted = true;	/* a new one, and all told */
	}
	return true;
}

/*
 * Requests.
 */

static void
hub_read_subscribe(struct hub *hub, struct hub_mail *mail)
{
	struct span names = mail_text(mail), name;
	struct buf *out;
	size_t began;

	list_append(&hub->asked, &mail->node);
	if (!channels_join(hub, mail->from, names) ||
	    (hub->server == NULL && hub->failures > 0 &&
	    clock_us() < hub->retry_us)) {
		hub_answer(mail, false);
		return;
	}
	if (hub->server == NULL)
		hub_open(hub);
	if (!hub->is_open)
		return;			/* hub_opened() asks for them all */
	mail->sent = true;
	out = hub_begin(hub, &began);
	while (next_name(&names, &name))
		hub_put_name(out, "LISTEN", name);
	hub_ask(hub, out, began);
}

static void
hub_read_unsubscribe(struct hub *hub, struct hub_mail *mail)
{
	struct span names = mail_text(mail), name;
	size_t began;
	struct buf *out = hub_begin(hub, &began);
	size_t empty = out->len;

	while (next_name(&names, &name))
		if (channel_leave(hub, mail->from, name))
			hub_put_name(out, "UNLISTEN", name);
	if (hub_is_out_of_place(hub))
		server_close(hub->server, "nobody listens");
	if (!hub->is_open || out->len == empty) {
		mem_free(mail);
		return;
	}
	mail->sent = true;
	list_append(&hub->asked, &mail->node);
	hub_ask(hub, out, began);
}

static void
hub_read_mark(struct hub *hub, struct hub_mail *mail)
{
	size_t began;
	struct buf *out = hub_begin(hub, &began);

	if (!hub->is_open) {
		mem_free(mail);
		return;
	}
	hub_put_mark(out, mail->client_id, mail->serial);
	mail->sent = true;
	list_append(&hub->asked, &mail->node);
	hub_ask(hub, out, began);
}

static void
hub_read(struct hub_mail *mail)
{
	struct hub *hub = mail->hub;

	check_magic(hub, HUB_MAGIC);
	switch (mail->news) {
	case HUB_SUBSCRIBE:
		hub_read_subscribe(hub, mail);
		return;
	case HUB_UNSUBSCRIBE:
		hub_read_unsubscribe(hub, mail);
		return;
	case HUB_MARK_ANEW:
		hub_read_mark(hub, mail);
		return;
	case HUB_RETIRE:
		if (hub->server != NULL)
			hub_look_after(hub);
		break;
	case HUB_ANSWER:
		channels_answer(mail->to, hub, mail->client_id, mail->serial,
		    mail->good);
		break;
	case HUB_NOTIFICATION:
		channels_notified(mail->to, hub, mail_text(mail));
		break;
	case HUB_MARK:
		channels_marked(mail->to, mail->client_id, mail->serial);
		break;
	case HUB_RESUMED:
		channels_resumed(mail->to, hub);
		break;
	}
	mem_free(mail);
}
