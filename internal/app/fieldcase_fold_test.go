package app_test

import (
	"strings"
	"testing"
	"time"
)

const minute = time.Minute

func TestFieldCaseF01RedeliveryWhileWaiting(t *testing.T) {
	anyOrder(t, caseOf{
		tasks: []string{"a1"}, lines: `
{"kind":"task.received","task_id":"a1","name":"pub.export","queue":"slow","worker":"celery@n1","at":"2026-03-02T08:00:00Z","args":[7],"kwargs":{}}
{"kind":"task.received","task_id":"a1","name":"pub.export","queue":"slow","worker":"celery@n2","at":"2026-03-02T09:00:00Z","args":[7],"kwargs":{}}
{"kind":"task.received","task_id":"a1","name":"pub.export","queue":"slow","worker":"celery@n1","at":"2026-03-02T10:00:00Z","args":[7],"kwargs":{}}
{"kind":"task.started","task_id":"a1","worker":"celery@n2","at":"2026-03-02T10:05:00Z"}
{"kind":"task.started","task_id":"a1","worker":"celery@n1","at":"2026-03-02T10:06:00Z"}
{"kind":"task.succeeded","task_id":"a1","worker":"celery@n2","at":"2026-03-02T10:45:00Z","result":"ok"}
{"kind":"task.succeeded","task_id":"a1","worker":"celery@n1","at":"2026-03-02T10:47:00Z","result":"ok"}`,
		right: func(t testing.TB, l *lane) {
			t.Helper()
			l.task("a1", `{"state":"success","name":"pub.export","queue":"slow","args":[7],"kwargs":{},"received_at":"2026-03-02T08:00:00Z",
				"deliveries":3,"attempt_count":2,"retry_count":0,"counts_at_least":false,"attempts":[
				{"number":2,"state":"success","worker_name":"celery@n1","started_at":"2026-03-02T10:06:00Z","finished_at":"2026-03-02T10:47:00Z","wait_ms":null,"result":"ok"},
				{"number":1,"state":"success","worker_name":"celery@n2","started_at":"2026-03-02T10:05:00Z","finished_at":"2026-03-02T10:45:00Z","wait_ms":7500000,"result":"ok"}]}`)
			has(t, "stats", l.get("/stats"), `{"tasks_by_state":{"success":1},"tasks_total":1}`)
			has(t, "home", l.home(), `{"tasks_24h":1,"failures_24h":0}`)
			l.found("state=success&name=pub.export&queue=slow", "a1")
			l.agree()
		},
	})
}

func TestFieldCaseF03LostBeginning(t *testing.T) {
	play(t, noon, func(t *testing.T, f *field) {
		l := f.lane(t, nil)
		l.tell(`{"kind":"task.succeeded","task_id":"a3","worker":"celery@n1","at":"2026-03-02T08:10:00Z","result":3,"runtime_ms":250}`)
		l.task("a3", `{"state":"success","name":null,"queue":null,"args":null,"kwargs":null,"started_at":null,"received_at":null,"result":3,
			"runtime_ms":250,"finished_at":"2026-03-02T08:10:00Z","attempt_count":1,"attempts":[{"state":"success","started_at":null,"finished_at":"2026-03-02T08:10:00Z"}]}`)
		l.found("state=success", "a3")
		l.found("state=started")
		l.agree()
		l.tell(`{"kind":"task.received","task_id":"a3","name":"calc.add","queue":"math","worker":"celery@n1","at":"2026-03-02T08:09:59Z","args":[1,2],"kwargs":{}}`)
		l.task("a3", `{"state":"success","name":"calc.add","queue":"math","args":[1,2],"kwargs":{},"received_at":"2026-03-02T08:09:59Z",
			"finished_at":"2026-03-02T08:10:00Z","started_at":null,"result":3,"attempt_count":1}`)
		l.found("name=calc.add", "a3")
		l.found("state=success&queue=math", "a3")
		l.agree()
		has(t, "home", l.home(), `{"tasks_24h":1,"failures_24h":0}`)
	})
}

func TestFieldCaseF05CleanUpAfterASuccess(t *testing.T) {
	anyOrder(t, caseOf{
		engine: "rq", tasks: []string{"a5"}, lines: `
{"kind":"task.started","engine":"rq","task_id":"a5","name":"up.store","queue":"low","worker":"w-1","at":"2026-03-02T08:00:00Z"}
{"kind":"task.succeeded","engine":"rq","task_id":"a5","worker":"w-1","at":"2026-03-02T08:00:04Z","result":"stored"}
{"kind":"task.failed","engine":"rq","task_id":"a5","worker":"w-6","at":"2026-03-02T08:05:10Z","exception":"AbandonedJobError: moved by registry clean-up"}`,
		right: func(t testing.TB, l *lane) {
			t.Helper()
			l.taskOf("rq", "a5", `{"state":"success","result":"stored","exception":null,"traceback":null,"finished_at":"2026-03-02T08:00:04Z","worker_name":"w-1",
				"attempt_count":1,"attempts":[{"state":"success","worker_name":"w-1","runtime_ms":4000}]}`)
			has(t, "events", l.items("/events?engine=rq&task_id=a5"), `[
				{"kind":"task.failed","remark":"hearsay","worker_name":"w-6"},{"kind":"task.succeeded","remark":null},{"kind":"task.started","remark":null}]`)
			has(t, "stats", l.get("/stats"), `{"tasks_failed_24h":0,"tasks_succeeded_24h":1,"failure_rate_24h":0,"tasks_by_state":{"success":1}}`)
			l.found("state=failure")
			for _, row := range get(t, l.field.Client, "/api/v1/home/recent-failures")["items"].([]any) {
				if row.(map[string]any)["project_slug"] == l.slug {
					t.Errorf("recent failures hold %v, want none of this project", row)
				}
			}
			l.agree()
		},
	})
}

func TestFieldCaseF09RetriesInTheNextReceipt(t *testing.T) {
	anyOrder(t, caseOf{
		tasks: []string{"a9"}, lines: `
{"kind":"task.sent","task_id":"a9","name":"pay.poll","queue":"pay","at":"2026-03-02T08:00:00Z","retries":0}
{"kind":"task.received","task_id":"a9","name":"pay.poll","queue":"pay","worker":"celery@p1","at":"2026-03-02T08:00:00.100Z","retries":0}
{"kind":"task.started","task_id":"a9","worker":"celery@p1","at":"2026-03-02T08:00:00.200Z"}
{"kind":"task.retried","task_id":"a9","worker":"celery@p1","at":"2026-03-02T08:00:01Z","reason":"Timeout()"}
{"kind":"task.received","task_id":"a9","name":"pay.poll","queue":"pay","worker":"celery@p2","at":"2026-03-02T08:00:01.100Z","retries":1,"eta":"2026-03-02T08:00:31Z"}
{"kind":"task.started","task_id":"a9","worker":"celery@p2","at":"2026-03-02T08:00:31Z"}
{"kind":"task.retried","task_id":"a9","worker":"celery@p2","at":"2026-03-02T08:00:32Z","reason":"Timeout()"}
{"kind":"task.received","task_id":"a9","name":"pay.poll","queue":"pay","worker":"celery@p1","at":"2026-03-02T08:00:32.100Z","retries":2,"eta":"2026-03-02T08:01:32Z"}
{"kind":"task.started","task_id":"a9","worker":"celery@p1","at":"2026-03-02T08:01:32Z"}
{"kind":"task.succeeded","task_id":"a9","worker":"celery@p1","at":"2026-03-02T08:01:33Z"}`,
		right: func(t testing.TB, l *lane) {
			t.Helper()
			l.task("a9", `{"state":"success","retry_count":2,"attempt_count":3,"deliveries":3,"reason":null,"received_at":"2026-03-02T08:00:00.1Z","attempts":[
				{"number":3,"state":"success","worker_name":"celery@p1","retries":2,"wait_ms":0,"runtime_ms":1000,"reason":null},
				{"number":2,"state":"retry","worker_name":"celery@p2","retries":1,"wait_ms":0,"runtime_ms":1000,"reason":"Timeout()"},
				{"number":1,"state":"retry","worker_name":"celery@p1","retries":0,"wait_ms":100,"runtime_ms":800,"reason":"Timeout()"}]}`)
			has(t, "stats", l.get("/stats"), `{"tasks_by_state":{"success":1},"tasks_total":1,"tasks_succeeded_24h":1,"tasks_failed_24h":0}`)
			has(t, "home", l.home(), `{"tasks_24h":1}`)
			l.agree()
		},
	})
}

func TestFieldCaseF15SoftAndHardLimit(t *testing.T) {
	anyOrder(t, caseOf{
		tasks: []string{"s15", "h15"}, lines: `
{"kind":"task.started","task_id":"s15","name":"job.soft","worker":"celery@n1","at":"2026-03-02T08:00:00Z"}
{"kind":"task.succeeded","task_id":"s15","worker":"celery@n1","at":"2026-03-02T08:01:02Z","result":"partial","soft_limit_hit":true}
{"kind":"task.started","task_id":"h15","name":"job.hard","worker":"celery@n1","at":"2026-03-02T08:00:00Z"}
{"kind":"task.failed","task_id":"h15","name":"<unknown:job.hard>","worker":null,"at":"2026-03-02T08:02:00Z","exception":"TimeLimitExceeded(120,)","traceback":null}
{"kind":"worker.heartbeat","worker":"celery@n1","at":"2026-03-02T08:02:05Z"}`,
		right: func(t testing.TB, l *lane) {
			t.Helper()
			l.task("s15", `{"state":"success","name":"job.soft","result":"partial"}`)
			l.task("h15", `{"state":"failure","name":"job.hard","worker_name":"celery@n1","exception":"TimeLimitExceeded(120,)","traceback":null,
				"attempt_count":1,"attempts":[{"state":"failure","worker_name":"celery@n1","runtime_ms":120000,"traceback":null}]}`)
			l.found("state=failure&name=job.hard", "h15")
			l.found("name=unknown")
			l.agree()
		},
	})
}

func TestFieldCaseF32RunAgainByHand(t *testing.T) {
	const first = `
{"kind":"task.started","engine":"rq","task_id":"m32","name":"sync","worker":"w1","at":"2026-03-01T08:00:00Z"}
{"kind":"task.failed","engine":"rq","task_id":"m32","worker":"w1","at":"2026-03-01T08:00:05Z","exception":"ConnectionRefused: db1","traceback":"tb-one"}
{"kind":"task.received","engine":"rq","task_id":"m32","name":"sync","queue":"default","worker":"w2","at":"2026-03-02T09:00:00Z"}
{"kind":"task.started","engine":"rq","task_id":"m32","worker":"w2","at":"2026-03-02T09:00:01Z"}`
	t.Run("while it runs", func(t *testing.T) {
		anyOrder(t, caseOf{engine: "rq", tasks: []string{"m32"}, lines: first, right: func(t testing.TB, l *lane) {
			t.Helper()
			l.taskOf("rq", "m32", `{"state":"started","started_at":"2026-03-02T09:00:01Z","finished_at":null,"exception":null,"traceback":null,"runtime_ms":null,
				"worker_name":"w2","attempt_count":2,"attempts":[{"number":2,"state":"started"},{"number":1,"state":"failure","exception":"ConnectionRefused: db1","traceback":"tb-one"}]}`)
			l.agree()
		}})
	})
	t.Run("when it has failed", func(t *testing.T) {
		anyOrder(t, caseOf{
			engine: "rq", tasks: []string{"m32"}, lines: first + `
{"kind":"task.failed","engine":"rq","task_id":"m32","worker":"w2","at":"2026-03-02T09:00:02Z","exception":"KeyError: 'sku'","traceback":null}`,
			right: func(t testing.TB, l *lane) {
				t.Helper()
				l.taskOf("rq", "m32", `{"state":"failure","started_at":"2026-03-02T09:00:01Z","finished_at":"2026-03-02T09:00:02Z","exception":"KeyError: 'sku'",
					"traceback":null,"runtime_ms":1000,"wait_ms":1000,"attempt_count":2,"attempts":[
					{"number":2,"state":"failure","worker_name":"w2","exception":"KeyError: 'sku'","traceback":null,"runtime_ms":1000,"wait_ms":1000},
					{"number":1,"state":"failure","worker_name":"w1","exception":"ConnectionRefused: db1","traceback":"tb-one","runtime_ms":5000}]}`)
				has(t, "stats", l.get("/stats?hours=72"), `{"tasks_failed_24h":2,"tasks_by_state":{"failure":1}}`)
				l.agree()
			},
		})
	})
}

func TestFieldCaseF36StopInOrder(t *testing.T) {
	anyOrder(t, caseOf{
		engine: "arq", at: noon.Add(5 * minute), tasks: []string{"c36"}, lines: `
{"kind":"task.started","engine":"arq","task_id":"c36","name":"crawl","worker":"arq-old","at":"T+0","job_try":1}
{"kind":"task.started","engine":"huey","task_id":"i36","name":"crawl","worker":"hw-old","at":"T+0"}
{"kind":"task.retried","engine":"arq","task_id":"c36","worker":"arq-old","at":"T+10","reason":"CancelledError","retry_count":1}
{"kind":"worker.offline","engine":"arq","worker":"arq-old","at":"T+11","reason":"shutdown"}
{"kind":"worker.offline","engine":"huey","worker":"hw-old","at":"T+11","reason":"shutdown"}
{"kind":"task.started","engine":"arq","task_id":"c36","name":"crawl","worker":"arq-new","at":"T+30","job_try":2}
{"kind":"task.succeeded","engine":"arq","task_id":"c36","worker":"arq-new","at":"T+60"}`,
		right: func(t testing.TB, l *lane) {
			t.Helper()
			l.taskOf("arq", "c36", `{"state":"success","retry_count":1,"attempt_count":2,"attempts":[
				{"state":"success","worker_name":"arq-new","runtime_ms":30000},{"state":"retry","worker_name":"arq-old","reason":"CancelledError","runtime_ms":10000}]}`)
			has(t, "stats", l.get("/stats"), `{"tasks_failed_24h":0,"failure_rate_24h":0}`)
			stopped := map[any]bool{}
			for _, w := range l.bare("/workers") {
				if w := w.(map[string]any); w["stopped_at"] != nil {
					has(t, "a stopped worker", w, `{"state":"offline"}`)
					stopped[w["name"]] = true
				}
			}
			if !stopped["arq-old"] || !stopped["hw-old"] || len(stopped) != 2 {
				t.Errorf("stopped workers: %v, want arq-old and hw-old", stopped)
			}
			l.agree()
		},
	})
}

func TestFieldCaseF45RetryUnderANewID(t *testing.T) {
	const labelled = `
{"kind":"task.started","engine":"taskiq","task_id":"n1","name":"pull","worker":"tq-1","at":"2026-03-02T08:00:00Z"}
{"kind":"task.failed","engine":"taskiq","task_id":"n1","worker":"tq-1","at":"2026-03-02T08:00:01Z","exception":"Timeout","will_retry":true}
{"kind":"task.received","engine":"taskiq","task_id":"n2","name":"pull","worker":"tq-1","at":"2026-03-02T08:00:06Z","parent_task_id":"n1","root_task_id":"n1","retries":1}
{"kind":"task.started","engine":"taskiq","task_id":"n2","worker":"tq-1","at":"2026-03-02T08:00:06Z"}
{"kind":"task.succeeded","engine":"taskiq","task_id":"n2","worker":"tq-1","at":"2026-03-02T08:00:07Z"}`
	for _, tt := range []struct{ name, lines, ties string }{
		{"labelled", labelled, `"parent_task_id":"n1","root_task_id":"n1"`},
		{"unlabelled", strings.ReplaceAll(labelled, `"parent_task_id":"n1","root_task_id":"n1",`, ""), `"parent_task_id":null,"root_task_id":null`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			anyOrder(t, caseOf{engine: "taskiq", tasks: []string{"n1", "n2"}, lines: tt.lines, right: func(t testing.TB, l *lane) {
				t.Helper()
				l.taskOf("taskiq", "n1", `{"state":"failure","exception":"Timeout","attempt_count":1,"parent_task_id":null}`)
				l.taskOf("taskiq", "n2", `{"state":"success","retry_count":1,"attempt_count":1,`+tt.ties+`,"attempts":[{"number":1,"retries":1}]}`)
				l.agree()
			}})
		})
	}
}

func TestFieldCaseF56Expiry(t *testing.T) {
	const (
		before = `
{"kind":"task.revoked","task_id":"x1","worker":"celery@c1","at":"2026-03-02T08:00:15Z","expired":true,"terminated":false}
{"kind":"task.received","task_id":"x2","name":"tick","queue":"cron","worker":"celery@c1","at":"2026-03-02T08:00:19Z","expires":"2026-03-02T08:00:04Z"}
{"kind":"task.started","task_id":"x2","worker":"celery@c1","at":"2026-03-02T08:00:26Z"}
{"kind":"task.succeeded","task_id":"x2","worker":"celery@c1","at":"2026-03-02T08:00:27Z","result":null}`
		late = `
{"kind":"task.sent","task_id":"x1","name":"tick","queue":"cron","at":"2026-03-02T08:00:00Z","expires":"2026-03-02T08:00:15Z"}`
		x1 = `"state":"revoked","reason":"expired","finished_at":"2026-03-02T08:00:15Z","started_at":null,"attempt_count":0,"attempts":[]`
		x2 = `{"state":"success","result":null,"has_result":true,"attempt_count":1}`
	)
	right := func(beginning string) func(t testing.TB, l *lane) {
		return func(t testing.TB, l *lane) {
			t.Helper()
			l.task("x1", `{`+x1+`,`+beginning+`}`)
			l.task("x2", x2)
			l.found("state=revoked", "x1")
			has(t, "stats", l.get("/stats"), `{"tasks_failed_24h":0,"failure_rate_24h":0,"tasks_by_state":{"revoked":1,"success":1}}`)
			l.agree()
		}
	}
	t.Run("without the beginning", func(t *testing.T) {
		anyOrder(t, caseOf{tasks: []string{"x1", "x2"}, lines: before, right: right(`"name":null,"queue":null`)})
	})
	t.Run("with the beginning", func(t *testing.T) {
		anyOrder(t, caseOf{tasks: []string{"x1", "x2"}, lines: before + late, right: right(`"name":"tick","queue":"cron"`)})
	})
}

func TestFieldCaseF61ChordWithoutItsBody(t *testing.T) {
	anyOrder(t, caseOf{
		at: noon.Add(5 * minute), tasks: []string{"root", "p1", "p2", "p3", "body"}, lines: `
{"kind":"task.succeeded","task_id":"root","name":"wf.begin","worker":"celery@n1","at":"T+0"}
{"kind":"task.succeeded","task_id":"p1","name":"wf.part","worker":"celery@n1","at":"T+1","parent_task_id":"root","root_task_id":"root"}
{"kind":"task.failed","task_id":"p2","name":"wf.part","worker":"celery@n1","at":"T+2","parent_task_id":"root","root_task_id":"root","exception":"E"}
{"kind":"task.sent","task_id":"body","name":"wf.end","queue":"q","at":"T+0","parent_task_id":"root","root_task_id":"root"}
{"kind":"task.revoked","task_id":"p3","worker":"celery@n1","at":"T+3","parent_task_id":"root","root_task_id":"root"}`,
		right: func(t testing.TB, l *lane) {
			t.Helper()
			l.task("root", `{"state":"success","parent_task_id":null}`)
			for task, state := range map[string]string{"p1": "success", "p2": "failure", "body": "pending", "p3": "revoked"} {
				l.task(task, `{"state":"`+state+`","parent_task_id":"root","root_task_id":"root"}`)
			}
			l.found("state=started")
			l.agree()
		},
	})
}
