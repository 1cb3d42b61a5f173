"""What Paddock promises, and the tests that hold it to that.

One entry a promise. A promise nothing tests yet is in `GAPS` with the reason. Both are checked by
test_requirements.py, so a test that is renamed or removed takes its promise with it only in plain sight.
"""

from typing import Final


def by(module: str, *claims: str) -> tuple[str, ...]:
    """The ids of tests in `tests/<folder>/test_<name>.py`, given as `folder/name` and the claims without `test_`."""
    folder, _, name = module.rpartition("/")
    return tuple(f"tests/{folder}/test_{name}.py::test_{claim}" for claim in claims)


BUS: Final = {
    "A late PONG, raising callbacks, a bug in the parser, a frozen peer and an expired credential end no connection.": (
        *by(
            "bus/safeclient",
            "a_late_pong_leaves_the_connection_alive",
            "raising_callbacks_do_not_keep_a_connection_down",
            "an_exception_in_the_parser_becomes_a_reconnect",
            "a_frozen_peer_with_unsent_output_is_noticed_and_left",
            "an_expired_credential_is_read_anew_and_the_connection_goes_on",
        ),
    ),
    "Everybody on the bus may do what their work needs and nothing else.": by(
        "bus/rights", "a_service_may_do_exactly_its_row", "a_daemon_may_do_exactly_its_row"
    ),
    "A daemon cannot make a service write for it.": by(
        "bus/accounts", "a_reply_subject_a_daemon_invents_reaches_nothing"
    ),
    "One machine can never answer for another, nor an old sandbox for a new one.": by(
        "bus/accounts", "an_old_generation_gets_no_call_meant_for_the_new_one"
    ),
    "A reply after 24 s crosses the accounts.": by("bus/accounts", "a_reply_after_24_seconds_still_arrives"),
    "A call longer than a reply is held is one await for its caller.": by(
        "bus/caller", "a_call_longer_than_a_reply_is_held_is_one_await_for_its_caller"
    ),
    "A machine that is not there is offline at once, never a hang.": by(
        "bus/caller", "a_machine_that_is_not_there_is_offline_at_once"
    ),
    "What is asked of a bus that is down fails at once and is never done later.": by(
        "bus/caller", "what_is_asked_of_a_bus_that_is_down_fails_at_once_and_is_never_done"
    ),
    "A late call is not carried out.": by("bus/responder", "a_late_call_is_refused_and_not_carried_out"),
    "A large answer arrives whole and holds up nobody.": by(
        "bus/chunks", "ten_megabytes_arrive_as_they_were_sent_while_other_calls_stay_quick"
    ),
    "What cannot be read is kept as a dead letter.": by(
        "bus/puller", "what_cannot_be_read_is_kept_as_a_dead_letter_and_not_delivered_again"
    ),
    "Reading events goes on as soon as a restarted server is back.": by(
        "bus/puller", "reading_goes_on_in_the_moment_the_server_is_back"
    ),
    "No secret is in a log line.": by(
        "bus/logs",
        "values_under_secret_names_are_hidden",
        "what_looks_like_a_secret_is_cut_out_of_any_text",
        "lines_of_other_libraries_are_json_and_redacted",
    ),
    "A second signal exits at once.": by(
        "bus/lifecycle", "the_first_signal_stops_and_the_second_exits_at_once"
    ),
}

CONTRACTS: Final = {
    "No error code and no kind is ever used twice.": by(
        "contracts/errors", "no_code_and_no_kind_is_used_twice"
    ),
    "A machine can be deleted from every phase, and no phase is a dead end.": by(
        "contracts/phases",
        "delete_is_possible_from_every_phase",
        "every_phase_leads_to_deleted",
        "every_unfinished_phase_has_a_way_out_when_its_limit_passes",
    ),
    "An id cannot escape its subject.": by("contracts/ids", "what_could_escape_a_subject_is_no_id"),
    "What git would take for an option or a helper is refused.": by(
        "contracts/git", "only_what_git_takes_for_what_it_is_may_pass"
    ),
}

STORE: Final = {
    "Work is claimed by one, taken over after a crash, and finished by whoever holds it.": by(
        "store/runner",
        "a_crash_is_taken_over_by_another_and_is_no_attempt",
        "two_pushers_share_the_work_and_one_machine_is_worked_on_once",
        "a_lease_that_expired_finishes_nothing",
    ),
    "Ready and external id committed at the same moment start setup once.": by(
        "store/machines", "ready_and_external_id_committed_at_the_same_moment_start_setup_once"
    ),
    "The same client token gives the same machine.": by(
        "store/machines",
        "the_same_client_token_and_request_give_the_same_machine",
        "twenty_creates_with_one_token_at_once_make_one_machine",
    ),
    "Delete waits for no guest and for the provider's call under way.": by(
        "store/runner",
        "deleting_cancels_the_work_under_way_at_once",
        "deleting_while_the_provider_works_waits_for_it_and_then_destroys",
    ),
    "An event and the fact it tells are committed together.": by(
        "store/outbox", "a_rolled_back_fact_never_leaves", "rows_wait_in_order_of_writing_until_marked"
    ),
    "A row the stream refuses is parked and the others go on.": by(
        "store/outbox", "a_row_refused_five_times_is_parked_and_the_others_go_on"
    ),
    "Secrets are sealed, tokens are hashed.": by(
        "store/keeping",
        "a_rotated_ring_still_opens_what_the_old_key_sealed",
        "a_token_is_good_until_revoked_and_its_text_is_not_kept",
    ),
    "The schema is what the code expects, whoever migrates.": by(
        "store/engine",
        "the_migrations_make_exactly_the_tables_the_code_expects",
        "two_processes_that_migrate_at_once_and_a_third_later_agree",
    ),
}

SERVICES: Final = {
    "Events committed while the bus is down arrive when it is back.": by(
        "registrar/outbox_relay", "events_committed_while_the_bus_is_down_arrive_when_it_is_back"
    ),
    "A restored backup does not stop the fleet.": by(
        "registrar/reports",
        "a_machine_this_store_does_not_know_is_told_to_wait",
        "a_newer_generation_than_known_is_told_to_wait_and_an_older_one_to_stop",
    ),
    "Losing all of Redis takes nobody offline.": by(
        "registrar/watcher", "an_emptied_redis_takes_nobody_offline_who_beats"
    ),
    "A sandbox is made once, found again after any crash, and outlives who made it.": by(
        "provisioner/host",
        "creating_at_once_is_one_sandbox",
        "one_nobody_came_to_note_is_found_again",
        "a_sandbox_outlives_who_started_it",
    ),
    "A sandbox is a sandbox, run by root or not.": by(
        "provisioner/bubblewrap",
        "it_can_write_home_and_tmp_and_nowhere_else",
        "mounting_again_does_not_make_the_host_writable",
        "it_sees_no_process_of_the_host",
    ),
    "Secrets do not reach a sandbox by its command line.": by(
        "provisioner/host", "no_process_list_shows_the_secret"
    ),
    "A vanished sandbox is made anew, and not for ever.": by(
        "provisioner/service", "a_killed_sandbox_is_made_anew_in_the_same_home_and_not_for_ever"
    ),
    "Not knowing is not gone.": by("provisioner/watcher", "not_knowing_is_not_gone"),
    "No sandbox is without its machine for long.": by(
        "provisioner/watcher", "a_sandbox_of_no_machine_is_removed_when_it_is_old_enough"
    ),
    "Past its limit a machine fails and says why; an outage fails nobody.": by(
        "provisioner/limits",
        "a_machine_past_its_limit_fails_and_says_what_it_was_doing",
        "time_in_which_no_provisioner_ran_is_given_back",
        "time_in_which_the_bus_was_away_is_given_back",
    ),
    "The boot log can be read before a machine is active.": by(
        "provisioner/service", "the_boot_log_can_be_read_before_the_machine_is_active"
    ),
    "The .env means the same to us, to the daemon and to a shell.": by(
        "setup_pusher/dotenv",
        "the_daemon_reads_back_what_was_written",
        "a_shell_that_sources_the_file_sees_the_same",
    ),
    "The .env is private, written only if different, and applied means confirmed.": by(
        "setup_pusher/env",
        "the_file_is_written_0600_and_commands_see_it",
        "the_same_environment_is_not_written_again",
        "applied_means_confirmed_by_the_machine",
    ),
    "Nothing of the user's is ever removed by a clone.": by(
        "setup_pusher/repositories",
        "a_path_in_use_is_refused_and_nothing_of_the_users_is_touched",
        "a_folder_of_the_users_with_a_partials_name_is_not_removed",
    ),
    "A repository's secret is in no argument, file or message.": by(
        "setup_pusher/repositories",
        "a_private_repository_is_cloned_and_its_secret_is_left_nowhere",
        "what_git_prints_is_shown_without_the_secret",
    ),
    "A setup step runs once however often its pushers die.": by(
        "setup_pusher/stages", "a_line_is_appended_once_although_pushers_die_and_two_compete"
    ),
    "No event and no row holds a secret.": by("setup_pusher/stages", "no_event_and_no_row_holds_a_secret"),
    "Activation re-checks what changed during the probe.": by(
        "prober/stages",
        "an_environment_changed_during_the_probe_puts_activation_off",
        "a_machine_deleted_during_the_probe_stays_deleted",
        "a_daemon_that_restarted_during_the_probe_puts_activation_off",
    ),
    "The gateway speaks JSON-RPC 2.0 and never shows its inside.": by(
        "gateway/jsonrpc",
        "whatever_comes_is_answered_with_valid_json_rpc_or_nothing",
        "a_bug_is_internal_with_a_request_id_and_no_text",
        "a_batch_answers_every_call_and_no_notification",
    ),
}

DAEMON: Final = {
    "A command never runs twice, and where the truth is lost we say unknown.": by(
        "daemon/calls",
        "a_repeated_call_gets_the_stored_answer",
        "a_call_repeated_while_it_runs_attaches",
        "the_same_id_for_something_else_is_a_conflict",
        "a_call_whose_process_died_with_its_daemon_is_unknown_and_not_run_again",
    ),
    "Nothing runs that is not in the journal first.": by(
        "daemon/journal", "a_call_that_cannot_be_written_does_not_begin"
    ),
    "A command's group is killed whole at its timeout, and a grandchild delays the answer by one second.": by(
        "bus/children",
        "a_timeout_kills_grandchildren_of_the_group_and_keeps_what_was_said",
        "a_grandchild_that_holds_the_pipes_delays_the_answer_by_a_second_only",
    ),
    "What cannot be started is a typed error, never an invented exit code.": by(
        "daemon/exec_command", "what_cannot_be_started_is_a_typed_fault_and_never_an_exit_code"
    ),
    "A file is replaced whole or not at all.": by(
        "daemon/write_file",
        "a_full_disk_is_said_so_and_leaves_the_old_file",
        "writers_at_once_leave_one_of_their_files_whole",
    ),
    "The supervisor reaps, restarts, and takes everything with it.": by(
        "daemon/supervise",
        "a_thousand_orphans_leave_no_zombie",
        "crashes_are_followed_by_growing_pauses_and_told_to_the_next_daemon",
        "as_pid_1_it_reaps_and_takes_the_namespace_with_it",
    ),
    "Two supervisors never share a home.": by("daemon/supervise", "two_supervisors_never_share_a_home"),
}

CLIENT: Final = {
    "A call whose answer was lost is asked again and acts once.": by(
        "client/transport",
        "a_create_whose_answer_was_lost_makes_one_machine",
        "a_command_whose_answer_was_lost_runs_once",
    ),
    "Who follows events misses none and gets none twice.": by(
        "client/websocket", "a_cut_link_misses_nothing_and_repeats_nothing"
    ),
    "A token goes nowhere but to its gateway.": (
        *by("client/address", "the_folder_s_token_is_never_sent_elsewhere"),
        *by("client/transport", "the_token_does_not_follow_a_redirect"),
    ),
}

TOOLBOX: Final = {
    "A command that was named runs once, and the same name with another request is a conflict.": (
        *by(
            "daemon/exec_handlers",
            "the_same_id_attaches_and_another_request_is_a_conflict",
            "a_retry_storm_of_one_id_starts_one_process",
        ),
        *by(
            "daemon/exec_killed",
            "what_was_accepted_and_perhaps_not_started_is_unknown_and_never_run",
            "whenever_the_keeper_is_killed_nothing_runs_twice",
        ),
        *by("fault/toolbox", "a_storm_of_the_same_start_is_one_process"),
    ),
    "A command outlives its daemon, with its terminal, its input, its output and its exit code.": (
        *by(
            "daemon/exec_killed",
            "a_command_outlives_its_daemon_and_its_end_is_known",
            "a_terminal_and_what_is_typed_survive_the_daemon",
            "stdin_goes_on_across_the_daemons_death",
        ),
        *by("fault/toolbox", "a_terminal_and_what_is_typed_into_it_outlive_the_daemon_and_the_gateway"),
    ),
    "Output is followed from any offset byte by byte, whatever between it and us is cut or killed.": (
        *by("daemon/exec_attach", "it_goes_on_at_any_offset_of_either_stream"),
        *by(
            "gateway/executions",
            "output_is_byte_identical_when_the_machines_connection_is_cut",
            "output_is_byte_identical_when_the_daemon_is_restarted",
            "output_is_byte_identical_when_the_bus_is_restarted",
        ),
        *by(
            "fault/toolbox",
            "output_is_followed_to_its_end_byte_by_byte_although_something_is_killed_again_and_again",
        ),
    ),
    "What nobody listened to is read later, whole.": by(
        "daemon/exec_attach", "a_hundred_megabytes_that_nobody_listened_to_are_read_whole_later"
    ),
    "A signal and a time-out reach the whole process group.": by(
        "daemon/exec_handlers",
        "a_signal_reaches_the_whole_group",
        "a_timeout_kills_the_whole_group_and_is_said",
    ),
    "Orphans by the thousand leave no zombie and steal no exit code, and hold up no end.": (
        *by("daemon/exec_killed", "orphans_by_the_thousand_leave_no_zombie_and_take_no_exit_code"),
        *by("daemon/exec_attach", "following_ends_with_the_command_though_a_grandchild_holds_its_pipe"),
    ),
    "Output beyond its limit is refused by name, and a summary counts what it leaves out.": by(
        "daemon/exec_handlers",
        "beyond_its_limit_the_oldest_output_is_refused",
        "a_summary_is_head_and_tail_with_what_is_left_out_counted",
    ),
    "A terminal has its size, several viewers, and a memory for who comes late.": (
        *by("daemon/exec_handlers", "a_terminal_can_be_resized_and_nothing_else_can"),
        *by(
            "daemon/exec_attach",
            "several_viewers_share_a_terminal",
            "late_viewers_of_a_terminal_see_its_last_mebibyte",
        ),
    ),
    "A slow viewer slows itself and nobody else.": (
        *by("bus/channels", "a_slow_taker_slows_neither_other_channels_nor_calls"),
        *by("daemon/exec_attach", "a_slow_viewer_slows_nobody"),
        *by("gateway/streams", "a_client_that_does_not_read_is_sent_no_more_and_stops_the_machine_in_time"),
    ),
    "A fork bomb under a limit leaves the daemon answering.": by(
        "daemon/exec_handlers", "a_fork_bomb_under_a_limit_leaves_the_daemon_answering"
    ),
    "A full disk makes commands wait and loses nothing.": by(
        "daemon/keeper", "on_a_full_disk_commands_wait_and_nothing_is_lost"
    ),
    "What is typed into a command and its variables are on no disk and in no log.": (
        *by("daemon/exec_handlers", "neither_its_environment_nor_its_stdin_is_written_to_disk"),
        *by("gateway/executions", "values_of_variables_and_stdin_are_in_no_log"),
    ),
    "A file is there whole or as it was, and what is expected of it is a precondition.": by(
        "daemon/uploads",
        "nothing_shows_before_the_commit_and_all_of_it_after",
        "a_reader_of_the_old_file_sees_the_old_one",
        "what_is_not_expected_is_not_replaced_and_the_upload_is_kept",
    ),
    "A copy goes on where it stopped, either way.": (
        *by("daemon/uploads", "after_a_restart_it_goes_on_where_it_was"),
        *by("client/uploads", "an_upload_that_was_stopped_goes_on_where_it_was_in_another_client"),
        *by("client/downloads", "a_download_that_was_stopped_goes_on_where_it_was_in_another_client"),
        *by(
            "fault/toolbox",
            "files_arrive_whole_both_ways_although_gateway_daemon_and_bus_are_killed_meanwhile",
        ),
    ),
    "A full disk and a read-only one are said by name, and an upload waits for room.": by(
        "daemon/file_upload",
        "a_full_disk_is_said_so_and_with_room_the_upload_goes_on",
        "a_read_only_file_system_is_said_so",
    ),
    "No answer is too large for the bus without saying so.": (
        *by("bus/chunks", "an_answer_too_large_for_a_reply_is_refused_where_no_chunks_can_go"),
        *by("bus/channel_server", "a_result_or_an_end_too_large_for_one_message_is_refused"),
    ),
    "A machine that is offline is said to be at once, by every tool, and when it was seen.": (
        *by("gateway/executions", "an_offline_machine_is_said_to_be_at_once_with_when_it_was_seen"),
        *by("gateway/port_faults", "an_offline_machine_is_known_at_once_and_when_it_was_seen"),
        *by("fault/toolbox", "a_machine_that_is_offline_is_said_to_be_in_under_a_second_by_every_tool"),
    ),
    "HTTP and WebSocket reach a port of a machine by name and by path, unchanged and streamed.": (
        *by(
            "gateway/port_proxy",
            "a_request_by_host_name_reaches_the_application",
            "a_request_by_path_reaches_the_application_without_the_prefix",
            "an_application_learns_where_a_request_came_from",
        ),
        *by("gateway/port_upgrade", "text_and_binary_go_both_ways"),
        *by("gateway/port_streams", "a_slow_reader_slows_the_application_and_little_is_under_way"),
    ),
    "Who shows no token and no ticket reaches no port and learns nothing.": by(
        "gateway/port_entry",
        "who_shows_nothing_good_is_refused_and_learns_nothing",
        "a_ticket_opens_no_other_port_and_no_other_machine",
        "a_ticket_that_expired_is_refused_however_it_comes",
        "the_access_token_never_reaches_the_application",
    ),
    "A command in a terminal has the terminal's bytes, size and Ctrl-C, and gives it back.": by(
        "client/commands/terminal",
        "keys_are_bytes_and_bytes_are_shown_as_they_are",
        "the_size_of_the_window_is_the_command_s_from_the_start_and_follows",
        "the_terminal_is_given_back_when_we_are_ended",
        "closing_the_window_leaves_the_command_running",
    ),
}

WHOLE: Final = {
    "A machine goes from created to active, runs commands, sees a changed variable, and is gone.": by(
        "local/demo", "the_demo_tells_the_whole_story_and_leaves_nothing_running"
    ),
    "Machines outlive the control plane and are found again by the next one.": by(
        "local/stack", "a_machine_outlives_the_stack_and_answers_the_next_one"
    ),
    "A stack on one machine survives its own servers' death.": by(
        "local/stack", "the_stack_goes_on_after_both_servers_were_killed"
    ),
    "A machine waits for a dead service and goes on when it is back.": by(
        "local/processes", "a_machine_waits_for_a_killed_service_and_goes_on_when_it_is_back"
    ),
    "Nothing outlives a killed `paddock up` but the machines.": by(
        "local/up", "kill_9_leaves_no_server_behind"
    ),
    "Everything secret in a data folder is its owner's alone.": by(
        "local/data", "everything_secret_is_readable_by_its_owner_only"
    ),
    "A data folder has one stack at a time.": by(
        "local/data", "a_second_stack_is_refused_and_told_who_holds_the_folder"
    ),
    "Every member declares what it imports.": by(
        "repo/members", "a_member_declares_every_distribution_it_imports"
    ),
    "The map shows every module.": by(
        "repo/map", "every_module_has_its_line_on_the_map", "every_line_of_the_map_is_a_module_that_exists"
    ),
}

REQUIREMENTS: Final[dict[str, tuple[str, ...]]] = {
    **BUS, **CONTRACTS, **STORE, **SERVICES, **DAEMON, **CLIENT, **TOOLBOX, **WHOLE,
}  # fmt: skip
"""Promise to the ids of its tests."""

GAPS: Final[dict[str, str]] = {
    "A revoked daemon stays out.": "the bus can (test_accounts.py); no service pushes a revocation yet",
    "Two hosts share a control plane.": "stages pin machines to hosts (test_runner.py); no test runs two hosts",
}
"""Promise to why nothing tests it yet."""
