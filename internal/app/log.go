package app

import (
	"io"
	"log/slog"

	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/redact"
)

// Logger makes the log that c asks for. Attributes that are called like secrets never come out.
func Logger(w io.Writer, c *config.Config) *slog.Logger {
	o := &slog.HandlerOptions{Level: level(c.General.LogLevel), ReplaceAttr: redact.Attr}
	if c.General.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

func level(name string) slog.Level {
	switch name {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}
