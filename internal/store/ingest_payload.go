package store

import (
	"context"
	"fmt"
)

// StoredPayloads is what a task's attempts and loose ends carry: by attempt number, and by mark (package fold's key) as
// JSON.
type StoredPayloads struct {
	Attempts map[int32]Payload
	Marks    map[string][]byte
}

const (
	readAttemptPayloads = `SELECT number, coalesce(result, ''), coalesce(exception, ''), coalesce(exception_message, ''), coalesce(traceback, ''), coalesce(reason, '')
		FROM attempts WHERE project_id = $1 AND engine = $2 AND task_key = $3`
	readMarkPayloads = `SELECT mark, payload FROM task_payloads WHERE project_id = $1 AND engine = $2 AND task_key = $3`
)

// Payloads reads what a task's ends carry. Only a task whose ends changed places needs it.
func (tx *IngestTx) Payloads(ctx context.Context, ref TaskRef) (StoredPayloads, error) {
	out := StoredPayloads{Attempts: map[int32]Payload{}, Marks: map[string][]byte{}}
	err := tx.query(ctx, readAttemptPayloads, ref, func(scan func(...any) error) error {
		var n int32
		var p Payload
		var result string
		if err := scan(&n, &result, &p.Exception, &p.ExceptionMessage, &p.Traceback, &p.Reason); err != nil {
			return err
		}
		if result != "" {
			p.Result = []byte(result)
		}
		out.Attempts[n] = p
		return nil
	})
	if err != nil {
		return out, fmt.Errorf("read payloads of attempts: %w", err)
	}
	err = tx.query(ctx, readMarkPayloads, ref, func(scan func(...any) error) error {
		var mark []byte
		var payload string
		if err := scan(&mark, &payload); err != nil {
			return err
		}
		out.Marks[string(mark)] = []byte(payload)
		return nil
	})
	if err != nil {
		return out, fmt.Errorf("read payloads of marks: %w", err)
	}
	return out, nil
}

// query runs q for one task on either database.
func (tx *IngestTx) query(ctx context.Context, q string, ref TaskRef, row func(scan func(...any) error) error) error {
	if tx.conn != nil {
		rows, err := tx.conn.Query(ctx, q, ref.Project, ref.Engine, ref.Key)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := row(rows.Scan); err != nil {
				return err
			}
		}
		return rows.Err()
	}
	rows, err := tx.lite.QueryContext(ctx, q, ref.Project, ref.Engine, ref.Key)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
