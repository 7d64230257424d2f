package store

import "context"

// sqlite writes one part after the other as ingest would: this database has one writer.
func (f *filler) sqlite(ctx context.Context) error {
	f.Told("write tasks")
	maker := f.Maker()
	var w IngestWrites
	for {
		part, ok := f.take()
		if !ok {
			break
		}
		maker(part, &w)
		rows := IngestWrites{Events: w.Events, NewTasks: w.NewTasks, Attempts: w.Attempts}
		if err := f.store.Ingest(ctx, func(tx *IngestTx) error { return tx.Write(ctx, &rows) }); err != nil {
			return err
		}
		if err := f.addRollups(ctx, f.written(part, &w)); err != nil {
			return err
		}
	}
	if err := f.signs(ctx); err != nil {
		return err
	}
	f.Told("analyze")
	_, err := f.store.write.ExecContext(ctx, `ANALYZE`)
	return err
}
