from session_service.metrics import Metrics


def test_each_has_a_registry_of_its_own() -> None:
    first, second = Metrics("1"), Metrics("2")
    first.restored(5, 100)
    assert first.registry.get_sample_value("session_service_restored_messages_total") == 5
    assert second.registry.get_sample_value("session_service_restored_messages_total") == 0


def test_what_the_store_tells_is_counted() -> None:
    metrics = Metrics("1")
    metrics.saved("delta", "append", 3, 1000, 400)
    metrics.saved("snapshot", "branch", 1, 10, 20)
    metrics.flushed(2, 0.004)
    metrics.corrupted()
    metrics.database(True)
    value = metrics.registry.get_sample_value
    assert value("session_service_saves_total", {"kind": "delta", "placement": "append"}) == 1
    assert value("session_service_saved_messages_total") == 4
    assert value("session_service_saved_content_bytes_total") == 1010
    assert value("session_service_stored_bytes_total") == 420
    assert value("session_service_flush_saves_sum") == 2
    assert value("session_service_flush_seconds_bucket", {"le": "0.005"}) == 1
    assert value("session_service_corruptions_total") == 1
    assert value("session_service_database_up") == 1


def test_what_packing_did_is_counted() -> None:
    metrics = Metrics("1")
    metrics.packed(64, 60, 9000, 3000, 0.004)
    metrics.packed(6, 5, 900, 300, 0.002)
    metrics.packing_found_damage()
    value = metrics.registry.get_sample_value
    assert value("session_service_packed_messages_total") == 70
    assert value("session_service_packed_segments_total") == 65
    assert value("session_service_packing_before_bytes_total") == 9900
    assert value("session_service_packing_after_bytes_total") == 3300
    assert value("session_service_packing_seconds_bucket", {"le": "0.0025"}) == 1
    assert value("session_service_packing_damaged_total") == 1


def test_what_housekeeping_tells_is_counted() -> None:
    metrics = Metrics("1")
    metrics.collected("state_values", 2)
    metrics.collected("state_values", 3)
    metrics.collected("transcripts", 0)
    metrics.collecting(0.004)
    metrics.trimmed(1000, 0.004)
    metrics.log_reaches_back(3600)
    value = metrics.registry.get_sample_value
    assert value("session_service_collected_rows_total", {"table": "state_values"}) == 5
    assert value("session_service_collected_rows_total", {"table": "transcripts"}) == 0
    assert value("session_service_collect_seconds_bucket", {"le": "0.005"}) == 1
    assert value("session_service_trimmed_events_total") == 1000
    assert value("session_service_trim_seconds_count") == 1
    assert value("session_service_event_log_age_seconds") == 3600
