/*
 * Cancelling.
 *
 * A CancelRequest is a connection of its own that carries a number and a key.
 * The number says on which worker and in which slot the client is (no search),
 * the key proves the right to cancel. Where it belongs, and if that client's
 * server is at work, another connection carries the server's own number and
 * key to Postgres:
 *
 *   canceller --(pid, key)--> any worker --mail--> the client's worker
 *                                                    |
 *              Postgres <--(backend pid, key)-- struct cancel
 *
 * Postgres acts on the request before it closes that connection. So the server
 * counts the cancels that are on their way (server->cancels), and while there
 * is one it is given to nobody: a cancel that comes late finds it idle, never
 * in the query of another client. When the connection has ended the canceller's
 * is closed too, which is what PQcancel waits for.
 */
#include "session/cancel.h"

#include <string.h>

#include "auth/digest.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/tls.h"
#include "session/client.h"
#include "session/link.h"
#include "session/migrant.h"
#include "session/server.h"
#include "session/setup.h"
#include "session/worker.h"
#include "wire/body.h"
#include "wire/startup.h"

#define CANCEL_MAGIC 0x636e636cu

/* A cancel on its way to a server. */
struct cancel {
	uint32_t magic;
	struct stream s;
	struct server *server;		/* NULL: has ended */
	struct worker *worker;
	struct list node;		/* the worker's */
	struct setup *setup;		/* a reference */
	struct tls_ctx *tls;		/* NULL = as plain as the server is */
	bool asked_tls;
	uint64_t canceller;		/* the client's id who asked; 0 = us */
	struct loop_timer timer;
	struct loop_task end;
};

/* A request on its way to the worker that has the client. */
struct cancel_mail {
	struct loop_mail mail;
	struct worker *worker;
	uint32_t pid;
	size_t key_len;
	unsigned char key[STARTUP_KEY_MAX];
	uint64_t canceller;
};

MEM_TYPE(cancel_type, cancel);
MEM_TYPE(cancel_mail_type, cancel_mail);

static void
canceller_done(struct worker *worker, void *arg)
{
	uint64_t *id = arg;
	struct client *client = worker_find_client(worker, *id);

	if (client != NULL)
		client_end(client, END_CANCEL_DONE, NULL);
	mem_free(id);
}

/* Lets the one who asked go; it may live on another worker. */
static void
canceller_release(uint64_t id)
{
	uint64_t *copy;

	if (id == 0)
		return;
	copy = mem_dup(&id, sizeof(id));
	if (copy != NULL && !worker_post(worker_of_client(id),
	    canceller_done, copy))
		mem_free(copy);
}

/*
 * To the server.
 */

static void
cancel_free(struct loop_task *task)
{
	struct cancel *cancel = container_of(task, struct cancel, end);

	list_remove(&cancel->node);
	setup_unref(cancel->setup);
	mem_delete(&cancel_type, cancel);
}

static void
cancel_end(struct cancel *cancel)
{
	struct server *server = cancel->server;

	if (server == NULL)
		return;
	cancel->server = NULL;
	stream_close(&cancel->s);
	loop_timer_clear(&cancel->timer);
	loop_defer(cancel->worker->loop, &cancel->end);
	canceller_release(cancel->canceller);
	server_cancel_ended(server);
}

static void
cancel_send(struct cancel *cancel)
{
	struct server *server = cancel->server;
	struct buf *out = &cancel->worker->scratch;

	buf_clear(out);
	startup_cancel(out, server->pid, (struct span){
	    (const char *)server->key, server->key_len });
	if (out->failed)
		cancel_end(cancel);
	else
		stream_send(&cancel->s, out->at, out->len);
}

static struct cancel *
cancel_of(struct stream *s)
{
	struct cancel *cancel = container_of(s, struct cancel, s);

	check_magic(cancel, CANCEL_MAGIC);
	return cancel;
}

static size_t
cancel_on_data(struct stream *s, const char *at, size_t len)
{
	struct cancel *cancel = cancel_of(s);

	/* The one answer there is: to the request for TLS. */
	if (cancel->server == NULL || !cancel->asked_tls || s->tls != NULL)
		return len;
	if (len != 1 || at[0] != 'S' || !stream_start_tls_connect(s,
	    cancel->tls, TLS_NEGOTIATED, cancel->server->host))
		cancel_end(cancel);
	return len;
}

static void
cancel_on_open(struct stream *s)
{
	struct cancel *cancel = cancel_of(s);
	struct buf *out = &cancel->worker->scratch;

	if (cancel->server == NULL)
		return;
	if (cancel->tls == NULL || s->tls != NULL) {
		cancel_send(cancel);
		return;
	}
	cancel->asked_tls = true;
	buf_clear(out);
	startup_ssl_request(out);
	stream_send(s, out->at, out->len);
}

static void
cancel_on_drain(struct stream *s)
{
	(void)s;
}

static void
cancel_on_close(struct stream *s, enum stream_end why)
{
	(void)why;
	cancel_end(cancel_of(s));
}

static const struct stream_ops cancel_ops = {
	.on_data = cancel_on_data,
	.on_open = cancel_on_open,
	.on_drain = cancel_on_drain,
	.on_close = cancel_on_close,
};

static void
cancel_timer(struct loop_timer *timer)
{
	struct cancel *cancel = container_of(timer, struct cancel, timer);

	/* It may still arrive: this server is nobody's any more. */
	if (cancel->server != NULL)
		cancel->server->tainted = true;
	cancel_end(cancel);
}

void
cancels_drop(struct worker *worker)
{
	list_each(node, &worker->cancels) {
		struct cancel *cancel =
		    container_of(node, struct cancel, node);

		stream_close(&cancel->s);
		loop_timer_clear(&cancel->timer);
		loop_task_cancel(&cancel->end);
		cancel_free(&cancel->end);
	}
}

static bool
cancel_start(struct server *server, uint64_t canceller)
{
	struct worker *worker = server->worker;
	struct cancel *cancel;
	uint64_t limit_us = worker->setup->conf->o.cancel_wait_timeout_us;

	if (server->key_len == 0)
		return false;
	cancel = mem_new(&cancel_type);
	if (cancel == NULL)
		return false;
	cancel->magic = CANCEL_MAGIC;
	cancel->worker = worker;
	cancel->setup = setup_ref(worker->setup);
	cancel->canceller = canceller;
	if (server->s.tls != NULL)
		cancel->tls = setup_server_tls(cancel->setup,
		    server->pool->db);
	stream_init(&cancel->s, &cancel_ops);
	loop_timer_init(&cancel->timer, cancel_timer);
	loop_task_init(&cancel->end, cancel_free);
	if (!stream_connect(&cancel->s, worker->loop, &server->address.any,
	    server->address_len)) {
		stream_close(&cancel->s);
		cancel_free(&cancel->end);
		return false;
	}
	cancel->server = server;
	list_append(&worker->cancels, &cancel->node);
	server->cancels++;
	stat_add(&server->pool->shard[worker->index].stat,
	    STAT_cancel_count, 1);
	if (limit_us > 0)
		loop_timer_set(worker->loop, &cancel->timer,
		    clock_us() + limit_us);
	return true;
}

/*
 * A cancel means the client's request. If it struck a query of ours that runs
 * in front of it, the request would be run all the same, in a session that is
 * not the client's. It waits until ours has ended.
 */
static bool
cancel_put_off(struct server *server, uint64_t canceller)
{
	const struct owed_entry *head = owed_head(&server->owed);

	if (server->client == NULL || head == NULL ||
	    head->kind != OWED_QUERY || head->action != OWED_SWALLOW)
		return false;
	canceller_release(server->cancel_for);
	server->cancel_wanted = true;
	server->cancel_for = canceller;
	return true;
}

void
cancel_put_off_ended(struct server *server, bool send)
{
	uint64_t canceller = server->cancel_for;

	if (!server->cancel_wanted)
		return;
	server->cancel_wanted = false;
	server->cancel_for = 0;
	if (!send || !cancel_start(server, canceller))
		canceller_release(canceller);
}

void
cancel_server(struct server *server)
{
	if (!cancel_put_off(server, 0))
		cancel_start(server, 0);
}

/*
 * From the client.
 */

/* What the request means for this client now; false: nothing. */
static bool
cancel_client(struct client *client, uint64_t canceller)
{
	if (client->state == CLIENT_WAITING) {
		/* No answer comes before its question is complete. */
		if (relay_has_request(client))
			client_end(client, END_WAIT_CANCELLED, NULL);
		return false;
	}
	if (migrant_cancelled(client) ||
	    client->server == NULL || client->server->owed.count == 0)
		return false;
	return cancel_put_off(client->server, canceller) ||
	    cancel_start(client->server, canceller);
}

static bool
cancel_key_fits(const struct client *client, const unsigned char *key,
    size_t len)
{
	size_t expected = client->wants_long_key ? CLIENT_KEY : 4;

	return len == expected && digest_equal(client->key, key, len);
}

static void
cancel_read(struct loop *loop, struct loop_mail *mail)
{
	struct cancel_mail *request =
	    container_of(mail, struct cancel_mail, mail);
	struct client *client =
	    worker_find_slot(request->worker, request->pid);
	bool under_way = false;

	(void)loop;
	if (client != NULL && client->state < CLIENT_CLOSING &&
	    cancel_key_fits(client, request->key, request->key_len))
		under_way = cancel_client(client, request->canceller);
	if (!under_way)
		canceller_release(request->canceller);
	mem_delete(&cancel_mail_type, request);
}

void
cancel_request(struct client *canceller, uint32_t pid, struct span key)
{
	struct worker *target = worker_of_pid(pid);
	struct cancel_mail *request;

	request = target == NULL || key.len > STARTUP_KEY_MAX ? NULL :
	    mem_new(&cancel_mail_type);
	if (request == NULL) {
		client_end(canceller, END_CANCEL_DONE, NULL);
		return;
	}
	request->mail.read = cancel_read;
	request->worker = target;
	request->pid = pid;
	request->key_len = key.len;
	memcpy(request->key, key.at, key.len);
	request->canceller = canceller->id;
	client_move(canceller, CLIENT_CANCELLER);
	loop_post(target->loop, &request->mail);
}
