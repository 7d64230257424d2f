package wire

import "time"

// Version is the protocol's number, the only one in use; ProtocolVersion is how hello and hello_ack spell it.
const (
	Version         = 2
	ProtocolVersion = "2"
)

// Limits of the protocol. Those without another reason are the ones that published agents obey.
const (
	// MaxFrame is the size of a message, in bytes, that neither end exceeds. Agents close the connection over a larger
	// one and meet it again after the reconnect; the largest one recorded has 3 KB.
	MaxFrame = 1 << 20
	// MaxDepth is how deep containers nest. Agents can't serialise beyond about 255; twice that leaves room and keeps
	// the stack of a reader small.
	MaxDepth = 512
	// MaxID is the length of a frame's id in characters: agents' strict parsers refuse an ack of a longer one.
	MaxID = 64
	// MaxEvents is the number of events in one frame, as the published schema has it.
	MaxEvents = 5000
	// MaxTaskID and MaxEngine are the lengths, in characters, of an event's task_id and engine.
	MaxTaskID = 200
	MaxEngine = 40
	// MaxKind is the length of an event's kind, in characters: the longest known has 22.
	MaxKind = 80

	// MinSecret is the length, in bytes, below which no agent accepts a signing secret.
	MinSecret = 32

	// Window is how far a frame's time may lie from ours, either way, the bound included.
	Window = 60 * time.Second
	// nonceMemory is how long a nonce is remembered. Rising sequence numbers refuse every replay already, so that few
	// nonces are kept: what a session needs has to stay small when thousands are idle.
	nonceMemory = 180 * time.Second
	maxNonces   = 64 // 1 KiB a session, allocated as frames come

	// MaxHealth and MaxQueues bound the entries of a heartbeat's adapter_health, and the queues and the workers in it.
	MaxHealth  = 256
	MaxQueues  = 1024
	MaxWorkers = 1024
	// MaxName is the length, in characters, of a queue's or a worker's name, and MaxNames how many of them one worker lists.
	MaxName  = 200
	MaxNames = 1024

	// MaxWorkersPerAgent is how many processes of one agent may be connected, unless the operator says otherwise.
	MaxWorkersPerAgent = 64

	// MaxStatusPerMinute is how many agent_status frames of one connection are worth a row.
	MaxStatusPerMinute = 12
)

// Timers of a connection.
const (
	// HelloTimeout is how long a new connection may wait with its hello: agents wait 10 s for the answer.
	HelloTimeout = 10 * time.Second
	// HeartbeatInterval is what hello_ack asks for.
	HeartbeatInterval = 10 * time.Second
	// PingInterval and PongTimeout: agents 1.5 to 1.6 starve their event loop for seconds, so less than 60 s is too short.
	PingInterval = 60 * time.Second
	PongTimeout  = 60 * time.Second
	// IdleTimeout is how long a connection may be without any message.
	IdleTimeout = 90 * time.Second
	// WriteTimeout is the least patience for a write: a busy agent may not read for seconds.
	WriteTimeout = 30 * time.Second
)

// Close codes that the brain sends. Agents up to 1.6 ignore the code of a close in mid-session; what newer ones do is
// said beside each.
const (
	CloseNormal         = 1000 // the peer left; back on the network schedule
	CloseTooBig         = 1009 // message over the limit of the library; network schedule
	CloseInternal       = 1011 // fault of ours; network schedule
	CloseRestart        = 1012 // orderly stop of the brain; back after about 1 s
	CloseDisplaced      = 4002 // a newer connection has the same agent and worker id; network schedule
	CloseRevoked        = 4003 // the agent's token was revoked; the long authentication schedule
	CloseProtocol       = 4400 // first frame no valid hello, or a frame that is no frame; network schedule
	CloseUnauthorized   = 4401 // unknown token; authentication schedule, so never for a fault of ours
	CloseSignature      = 4403 // wrong signature, replay or clock; network schedule
	CloseIdle           = 4408 // nothing heard for IdleTimeout; network schedule
	CloseVersion        = 4426 // protocol_version is not ours; 2 minutes to 1 hour, so never for a passing reason
	CloseTooManyWorkers = 4429 // the agent's slots are full, or connects come too fast; network schedule
)
