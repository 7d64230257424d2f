package audit_test

// Known answers, computed by another implementation than ours.
const (
	knownKID       = "1b1c4a15cf97e1df"
	knownRowKey    = "43e5e91fd829c3c2a4540cc3f0775b758e447860497ac2f1e2166980736bb251"
	knownPublicKey = "Hm4qaC57SSJtIi+VaiPviThcQcEwJMTnTEvrHj+cIEI="
	knownProof     = "346a81d1a2fa375a80334be67961a26ee62bd0d7ff677f630be7dc5bed770e34"
	knownHMAC      = "1ab8b19c1a8a9d35a5580d5b4527440b4f8f47ac7d212faae7f553b4704b3191"
	knownBody      = `{"action":"auth.login","actor_id":"u1","actor_kind":"user","actor_personal":"428eeaa99777b541924fef976684145877898b089c735feae2d3c9a1a431e9fa","clock_step":null,"details":{"session_id":"s1"},"id":"019b7c00-0000-7000-8000-000000000002","kid":"1b1c4a15cf97e1df","outcome":"allow","prev_row_hmac":"d39ab1e6f4e6a4a59415bf93dabf2318a8dafb6bda3637a2574f3ea86ad821d2","project_id":null,"project_label":null,"request_id":"r1","seq":2,"target_id":"u1","target_label":null,"target_personal":null,"target_type":"user","ts":"2026-01-02T03:04:06.000007Z","v":1}`
)
