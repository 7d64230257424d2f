package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/app/apptest"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// filled is an installation without a brain that runs, whose audit log has some thousand entries.
type filled struct {
	*installation

	url string // of the database
	to  string // where its backups go
}

func fill(t *testing.T, url string) *filled {
	t.Helper()
	in := install(t, url)
	for _, b := range in.brains {
		if err := b.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	f := &filled{installation: in, url: database(in, url), to: t.TempDir()}
	in.rows(f.url, 3000)
	return f
}

// rows appends to the audit log as this installation's key signs it.
func (in *installation) rows(url string, n int) {
	in.t.Helper()
	db := storetest.DB(in.t, url)
	for i := range n / 1000 { // what no entry has: big names, in a table of their own
		_, err := db.ExecContext(in.t.Context(), `INSERT INTO meta (key, value, updated_at) VALUES ($1, $2, (SELECT max(updated_at) FROM meta))`,
			fmt.Sprintf("filler %d", i), strings.Repeat(rand(i), 4000))
		if err != nil {
			in.t.Fatal(err)
		}
	}
}

// command is the real program as another process, with the first home.
func (in *installation) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(in.t.Context(), "z4j-brain", append([]string{"--home", in.homes[0]}, args...)...)
	cmd.Env = os.Environ()
	return cmd
}
