package gateway

import (
	"cmp"
	"context"
	"errors"

	"github.com/coder/websocket"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/wire"
)

// hello waits for a connection's first message. It answers nil if that is no hello: the connection is being closed.
func (s *Server) hello(c *conn) *wire.Hello {
	var hello wire.Hello
	var bad error
	if err := c.receive(maxHello, func(raw []byte) { hello, bad = wire.ParseHello(raw) }); err != nil {
		return nil // gone, too late or too large
	}
	c.idle.Stop()
	if bad == nil {
		return &hello
	}
	if s.notices.due(c.agent, "hello", s.Now().UnixMicro()) {
		s.Log.Warn("hello refused", "agent", c.agent, "name", c.name, "version", hello.AgentVersion, "err", bad)
	}
	if errors.Is(bad, wire.ErrVersion) {
		c.end(wire.CloseVersion, "unsupported protocol version")
	} else {
		c.end(wire.CloseProtocol, "not a valid hello")
	}
	return nil
}

// admit gives c its slot and answers its hello, or closes it and reports false. Everything that can refuse a session
// happens before the answer.
func (s *Server) admit(c *conn, hello *wire.Hello, master []byte) bool {
	if err := c.introduce(hello, master); err != nil {
		s.Log.Error("session not started", "agent", c.agent, "err", err)
		c.end(wire.CloseInternal, "internal error")
		return false
	}
	if !s.registry.reserve(c, s.SlotCap) {
		if s.notices.due(c.agent, "slots", s.Now().UnixMicro()) {
			s.Log.Warn("agent has too many processes", "agent", c.agent, "name", c.name, "cap", s.SlotCap)
		}
		c.end(wire.CloseTooManyWorkers, "too many processes of this agent")
		return false
	}
	got := s.presence.connect(c, c.greeting(hello, store.SecretID(master)))
	switch {
	case got.err != nil:
		if s.notices.due(id.ID{}, "connect", s.Now().UnixMicro()) {
			s.Log.Warn("agents' connections not written", "err", got.err)
		}
		c.end(wire.CloseInternal, "the database does not answer")
		return false
	case !got.taken: // revoked since the upgrade
		c.end(wire.CloseUnauthorized, "agent revoked")
		return false
	case s.stopping():
		c.end(wire.CloseRestart, "brain restarts")
		return false
	}
	c.send(func(dst []byte) ([]byte, error) {
		return wire.HelloAck{
			BrainVersion: s.BrainVersion, AgentID: c.agent.String(), ProjectID: c.project.String(), SessionID: c.session, MaxFrame: s.MaxFrame,
		}.Append(dst, s.Now()), nil
	})
	if c.ending.Load() {
		return false
	}
	c.start()
	if s.notices.due(c.agent, "connected", s.Now().UnixMicro()) {
		s.Log.Info("agent connected", "agent", c.agent, "name", c.name, "version", hello.AgentVersion, "worker_id", c.slot.WorkerID,
			"framework", hello.Framework, "engines", hello.Engines)
	}
	return true
}

// introduce takes over what the hello says.
func (c *conn) introduce(hello *wire.Hello, master []byte) error {
	c.version = hello.AgentVersion
	c.session = id.Random().String()
	c.slot = store.Slot{Project: c.project, Agent: c.agent, Named: hello.WorkerID != nil}
	if c.slot.Named {
		c.slot.WorkerID = *hello.WorkerID
	}
	c.acks, c.spins, c.window = wire.AckByID(hello.AgentVersion), wire.Spins(hello.AgentVersion), window
	if c.spins {
		c.window = windowSpin
	}
	c.source = &ingest.Session{
		ID: c.session, Project: c.project, Agent: c.agent, HasWorkerID: c.slot.Named, WorkerID: c.slot.WorkerID, Engines: hello.Engines,
		ProcessStarted: cmp.Or(hello.WorkerStartedAt, c.server.Now().UnixMicro()),
	}
	var err error
	c.wire, err = wire.NewSession(wire.Keys{
		Secret:  wire.ProjectSecret(string(master), c.project),
		AgentID: c.agent.String(), ProjectID: c.project.String(), SessionID: c.session, MaxFrame: c.server.MaxFrame,
	})
	return err
}

// greeting is what the database keeps of a hello, and of the master secret that the agent's token is of.
func (c *conn) greeting(hello *wire.Hello, secretID string) store.SlotConnect {
	version := hello.AgentVersion
	if version == "0.0.0" { // says nothing: the known one stays
		version = ""
	}
	return store.SlotConnect{
		Slot: c.slot, Session: c.session, At: store.TimeOf(c.server.Now()), SecretID: secretID,
		Role: hello.WorkerRole, Framework: hello.Framework, PID: hello.WorkerPID, Started: store.TimeAtOrNil(hello.WorkerStartedAt),
		ProtocolVersion: hello.ProtocolVersion, AgentVersion: version, Engines: hello.Engines, Schedulers: hello.Schedulers,
		Capabilities: hello.Capabilities, HostName: hello.HostName,
	}
}

// start begins what runs beside the reader of an admitted connection.
func (c *conn) start() {
	c.greeted.Store(true)
	c.idle.Reset(c.server.IdleTimeout)
	c.pinger.Reset(c.server.PingInterval)
}

// write puts a message on the socket; c.sendMu is held.
func (c *conn) write(raw []byte) error {
	c.wrote.Store(true)
	c.watchdog.Reset(c.server.WriteTimeout)
	defer c.watchdog.Stop()
	return c.ws.Write(context.Background(), websocket.MessageBinary, raw) // a context would cost a goroutine a message
}
